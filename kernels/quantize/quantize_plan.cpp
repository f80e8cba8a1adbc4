// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/base/checked.h"
#include "kernels/quantize/quantize.h"

namespace qvlmem {
namespace {

// A group up to this many columns is read twice out of cache and once out of memory (128 KiB of
// fp32).
constexpr int64_t kFusedCols = 32768;
// Columns of a unit: enough to hide the call, few enough to balance. Even, so that nibbles never
// straddle.
constexpr int64_t kUnitCols = 8192;

}  // namespace

Status make_quantize_plan(int64_t rows, int64_t cols, int bits, bool symmetric, int64_t group_size,
                          QuantizePlan* plan) noexcept {
  if (rows < 0 || cols < 0 || group_size < -1 || (bits != 8 && bits != 4)) {
    return Status::kInvalidArgument;
  }
  QuantizePlan p;
  p.bits = bits;
  p.symmetric = symmetric;
  p.per_tensor = group_size == 0;
  int64_t numel, bytes;
  if (!checked_mul(rows, cols, &numel) || !checked_mul(numel, 8, &bytes)) return Status::kOverflow;
  // Rows without padding run into one another: one long row serves every grouping that respects
  // rows.
  const bool dense_rows = bits == 8 || cols % 2 == 0;
  if (p.per_tensor && dense_rows) {
    cols = numel;
    rows = 1;
  }
  p.rows = rows;
  p.cols = cols;
  p.group = group_size > 0 ? std::min(group_size, std::max<int64_t>(cols, 1)) : cols;
  p.groups_per_row = p.per_tensor ? 1 : (group_size == -1 ? 1 : ceil_div(cols, p.group));
  if (p.per_tensor) {
    p.group_count = 1;
  } else if (!checked_mul(rows, p.groups_per_row, &p.group_count)) {
    return Status::kOverflow;
  }
  p.row_bytes = bits == 8 ? cols : ceil_div(cols, 2);
  p.fused = p.group <= kFusedCols && (!p.per_tensor || rows <= 1);
  if (p.fused) {
    const int64_t group = std::max<int64_t>(p.group, 1);
    const int64_t step = group % 2 == 0 ? group : 2 * group;
    p.unit_cols = std::max<int64_t>(kUnitCols / step, 1) * step;
  } else {
    // A piece never crosses a group: with an odd group its last piece would end within a byte, so
    // 4-bit units are then whole rows' worth of pieces only when the group is the row.
    p.unit_cols = kUnitCols;
    if (p.groups_per_row > 1) {
      // Long groups inside longer rows: rare; treat them as fused, whatever their length.
      p.fused = true;
      p.unit_cols = p.group % 2 == 0 ? p.group : 2 * p.group;
    }
  }
  p.units_per_row = cols == 0 ? 0 : ceil_div(cols, p.unit_cols);
  p.unit_count = rows * p.units_per_row;
  *plan = p;
  return Status::kOk;
}

}  // namespace qvlmem
