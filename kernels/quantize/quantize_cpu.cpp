// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/quantize_simd.h"

namespace qvlmem {

Status quantize_encode_cpu(const QuantizePlan& plan, const void* x, DType dtype, int64_t unit_begin,
                           int64_t unit_end, const uint64_t* seed, void* q, float* scale,
                           int32_t* zero_point) noexcept {
  if (unit_begin >= unit_end) return Status::kOk;
  return QVLMEM_SIMD_PICK(quantize_encode_units)(plan, x, dtype, unit_begin, unit_end, seed, q,
                                                 scale, zero_point);
}

void quantize_range_cpu(const QuantizePlan& plan, const void* x, DType dtype, int64_t unit_begin,
                        int64_t unit_end, QuantizeRange* ranges) noexcept {
  QVLMEM_SIMD_PICK(quantize_range_units)(plan, x, dtype, unit_begin, unit_end, ranges);
}

void quantize_encode_scaled_cpu(const QuantizePlan& plan, const void* x, DType dtype,
                                int64_t unit_begin, int64_t unit_end, const uint64_t* seed,
                                const float* scale, const int32_t* zero_point, void* q) noexcept {
  // From the end, where the first pass over the tensor ended: what it left in cache is used before
  // it is pushed out. Pieces, each from its beginning, or nothing could be read ahead.
  constexpr int64_t kPieceUnits = 32;
  for (int64_t end = unit_end; end > unit_begin;) {
    const int64_t begin = end - unit_begin > kPieceUnits ? end - kPieceUnits : unit_begin;
    QVLMEM_SIMD_PICK(quantize_encode_scaled_units)
    (plan, x, dtype, begin, end, seed, scale, zero_point, q);
    end = begin;
  }
}

void dequantize_cpu(const QuantizePlan& plan, const void* q, const float* scale,
                    const int32_t* zero_point, int64_t unit_begin, int64_t unit_end, void* y,
                    DType dtype) noexcept {
  if (unit_begin >= unit_end) return;
  QVLMEM_SIMD_PICK(dequantize_units)(plan, q, scale, zero_point, unit_begin, unit_end, y, dtype);
}

}  // namespace qvlmem
