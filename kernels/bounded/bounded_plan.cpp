// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/base/checked.h"
#include "kernels/bounded/bounded.h"
#include "kernels/coding/int_pack.h"

namespace qvlmem {
namespace {

// A row up to this many columns stays in L2 while its step is sought (128 KiB of fp32).
constexpr int64_t kFusedCols = 32768;
// Values of a unit: its table entry and short last block cost nothing, and there are enough to
// balance. A multiple of the block.
constexpr int64_t kUnitValues = 8192;

}  // namespace

Status make_bounded_plan(int64_t rows, int64_t cols, BoundedPlan* plan) noexcept {
  if (rows < 0 || cols < 0) return Status::kInvalidArgument;
  int64_t numel, bytes;
  if (!checked_mul(rows, cols, &numel) || !checked_mul(numel, 8, &bytes)) return Status::kOverflow;
  BoundedPlan p;
  p.rows = rows;
  p.cols = cols;
  p.fused = cols <= kFusedCols;
  if (p.fused) {
    p.rows_per_unit = std::max<int64_t>(1, kUnitValues / std::max<int64_t>(1, cols));
    p.unit_cols = cols;
    p.units_per_row = 1;
    p.unit_count = cols == 0 ? 0 : ceil_div(rows, p.rows_per_unit);
  } else {
    p.unit_cols = kUnitValues;
    p.units_per_row = ceil_div(cols, p.unit_cols);
    p.unit_count = rows * p.units_per_row;  // at most numel
  }
  *plan = p;
  return Status::kOk;
}

Status bounded_offsets(const BoundedPlan& plan, const int32_t* bytes, int64_t total_bytes,
                       int64_t* offset) noexcept {
  int64_t sum = 0;
  for (int64_t u = 0; u < plan.unit_count; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    const int64_t blocks = ceil_div(unit.end - unit.begin, kIntPackBlock);
    offset[u] = sum;
    if (bytes[u] < 1 + blocks || bytes[u] > 1 + blocks * int64_t{kIntPackMaxBytes}) {
      return Status::kCorrupt;
    }
    sum += bytes[u];  // within 5 bytes a value
  }
  offset[plan.unit_count] = sum;
  return sum == total_bytes ? Status::kOk : Status::kCorrupt;
}

}  // namespace qvlmem
