// SPDX-License-Identifier: Apache-2.0
// The vector loops of the float16 codec, on runs of values.
#pragma once

#include <cstddef>

#include "kernels/base/dtype.h"
#include "kernels/base/isa.h"

namespace qvlmem {

QVLMEM_SIMD_DECLARE(
    // Largest finite magnitude of n values; 0 where there is none. dtype: float32, bfloat16 or
    // float64.
    double half_magnitude_run(const void* x, DType dtype, size_t n);
    // The same, and writes n halves of x * inverse.
    double half_encode_run(const void* x, DType dtype, size_t n, double inverse, bool stream,
                           Half* half);
    // n values of half * scale, saturating.
    void half_decode_run(const Half* half, size_t n, double scale, bool stream, void* y,
                         DType dtype);)

}  // namespace qvlmem
