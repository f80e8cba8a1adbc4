// SPDX-License-Identifier: Apache-2.0
// Uniform quantization to 8 or 4 bits with one scale for each group of values.
//
// Layout. x is a matrix [rows, cols] (cols the last dimension). q holds one int8 an element (8
// bits), or two elements a byte along a row, the first in the low nibble, each row padded with 0 to
// a whole byte (4 bits). Groups: the whole tensor, a row, or runs of `group` columns within a row,
// the last shorter.
//
// Work is cut into units that write disjoint bytes of q, so that a caller may hand any range of
// units to any thread. Short groups are ranged and encoded in one pass (a unit is whole groups);
// long ones in two (a unit is a piece of a group): `fused` tells which.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/status.h"
#include "kernels/quantize/quantize_math.h"

namespace qvlmem {

struct QuantizePlan {
  int64_t rows = 0;
  int64_t cols = 0;
  int bits = 8;
  bool symmetric = true;
  bool per_tensor = false;
  bool fused = false;
  int64_t group = 0;  // columns of a full group (cols, where one scale serves a row or the tensor)
  int64_t groups_per_row = 0;  // 1 where per_tensor
  int64_t group_count = 0;     // scales in all
  int64_t row_bytes = 0;       // bytes of q a row
  int64_t unit_cols =
      0;  // columns of a full unit: a multiple of group where fused, else a piece of it
  int64_t units_per_row = 0;
  int64_t unit_count = 0;
};

// group_size: 0 the whole tensor, -1 a row, n > 0 runs of n columns. bits: 8 or 4.
// kInvalidArgument, or kOverflow where a size does not fit.
Status make_quantize_plan(int64_t rows, int64_t cols, int bits, bool symmetric, int64_t group_size,
                          QuantizePlan* plan) noexcept;

// The group that unit `unit` belongs to. REQUIRES: !plan.fused.
inline int64_t quantize_group_of_unit(const QuantizePlan& plan, int64_t unit) {
  if (plan.per_tensor) return 0;
  const int64_t row = unit / plan.units_per_row;
  const int64_t col = unit % plan.units_per_row * plan.unit_cols;
  return row * plan.groups_per_row + col / plan.group;
}

// Where fused: ranges and encodes units [unit_begin, unit_end). Writes their bytes of q, their
// scales, and their zero points unless plan.symmetric. seed: nullptr rounds to nearest even, else
// stochastically. kNonFinite where a value is NaN or infinite: outputs are then unspecified.
Status quantize_encode_cpu(const QuantizePlan& plan, const void* x, DType dtype, int64_t unit_begin,
                           int64_t unit_end, const uint64_t* seed, void* q, float* scale,
                           int32_t* zero_point) noexcept;

// Where not fused, first pass: ranges[u - unit_begin] for each unit, of min and max only where not
// plan.symmetric. The caller merges them by group.
void quantize_range_cpu(const QuantizePlan& plan, const void* x, DType dtype, int64_t unit_begin,
                        int64_t unit_end, QuantizeRange* ranges) noexcept;

// Where not fused, second pass: encodes units with the scales that are already in place.
void quantize_encode_scaled_cpu(const QuantizePlan& plan, const void* x, DType dtype,
                                int64_t unit_begin, int64_t unit_end, const uint64_t* seed,
                                const float* scale, const int32_t* zero_point, void* q) noexcept;

// Decodes units into y (rows x cols, dense, of type dtype), saturating at the type's largest finite
// value. zero_point: nullptr where symmetric.
void dequantize_cpu(const QuantizePlan& plan, const void* q, const float* scale,
                    const int32_t* zero_point, int64_t unit_begin, int64_t unit_end, void* y,
                    DType dtype) noexcept;

}  // namespace qvlmem
