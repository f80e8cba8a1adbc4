// SPDX-License-Identifier: Apache-2.0
// The vector loops of quantize, on runs of values inside one group.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/isa.h"
#include "kernels/quantize/quantize_math.h"

namespace qvlmem {

QVLMEM_SIMD_DECLARE(
    // Range of n values.
    void quantize_range_run(const void* x, DType dtype, size_t n, QuantizeRange* range);
    // Rounds n values to nearest into int8 (values of 4 bits too).
    void quantize_nearest_run(const void* x, DType dtype, size_t n, QuantizeGroup group,
                              int32_t low, int32_t high, bool stream, int8_t* q);
    // The same with stochastic rounding; index: flat position of the first value.
    void quantize_stochastic_run(const void* x, DType dtype, size_t n, QuantizeGroup group,
                                 int32_t low, int32_t high, uint64_t seed, uint64_t index,
                                 int8_t* q);
    // Packs n values of 4 bits into ceil(n / 2) bytes; the last high nibble is 0 where n is odd.
    void pack_nibbles(const int8_t* q, size_t n, uint8_t* bytes);
    // Unpacks n nibbles, sign-extended or not.
    void unpack_nibbles(const uint8_t* bytes, size_t n, bool sign_extend, int8_t* q);
    // Decodes n values (uint8 values 0..15 are non-negative int8, too).
    void dequantize_run(const int8_t* q, size_t n, float scale, int32_t zero_point, bool stream,
                        void* y, DType dtype);)

}  // namespace qvlmem
