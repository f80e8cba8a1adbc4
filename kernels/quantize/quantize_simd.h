// SPDX-License-Identifier: Apache-2.0
// The vector loops of quantize, on whole units: see quantize.h for what each does.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/isa.h"
#include "kernels/base/status.h"
#include "kernels/quantize/quantize.h"

namespace qvlmem {

QVLMEM_SIMD_DECLARE(
    Status quantize_encode_units(const QuantizePlan& plan, const void* x, DType dtype,
                                 int64_t unit_begin, int64_t unit_end, const uint64_t* seed,
                                 void* q, float* scale, int32_t* zero_point);
    void quantize_range_units(const QuantizePlan& plan, const void* x, DType dtype,
                              int64_t unit_begin, int64_t unit_end, QuantizeRange* ranges);
    void quantize_encode_scaled_units(const QuantizePlan& plan, const void* x, DType dtype,
                                      int64_t unit_begin, int64_t unit_end, const uint64_t* seed,
                                      const float* scale, const int32_t* zero_point, void* q);
    void dequantize_units(const QuantizePlan& plan, const void* q, const float* scale,
                          const int32_t* zero_point, int64_t unit_begin, int64_t unit_end, void* y,
                          DType dtype);)

}  // namespace qvlmem
