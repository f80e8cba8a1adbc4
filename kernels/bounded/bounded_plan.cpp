// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/base/checked.h"
#include "kernels/bounded/bounded.h"
#include "kernels/coding/huffman.h"
#include "kernels/coding/int_pack.h"

namespace qvlmem {
namespace {

// A row up to this many columns stays in L2 while its step is sought (128 KiB of fp32).
constexpr int64_t kFusedCols = 32768;
// Values of a packed unit: its table entry and short last block cost nothing, and there are enough
// to balance. A multiple of the block.
constexpr int64_t kUnitValues = 8192;
// Units of the packed form in one of the coded form, but for the last.
constexpr int64_t kCodedUnits = 4;
static_assert(kCodedUnits * std::max(kUnitValues, kFusedCols) <= int64_t{kHuffmanMaxCount},
              "a unit must fit the coder");

int64_t unit_blocks(const BoundedPlan& plan, int64_t u) {
  const BoundedUnit unit = bounded_unit(plan, u);
  return ceil_div(unit.end - unit.begin, kIntPackBlock);
}

}  // namespace

Status make_bounded_plan(int64_t rows, int64_t cols, BoundedForm form, BoundedPlan* plan) noexcept {
  if (rows < 0 || cols < 0) return Status::kInvalidArgument;
  int64_t numel, bytes;
  if (!checked_mul(rows, cols, &numel) || !checked_mul(numel, 8, &bytes)) return Status::kOverflow;
  const int64_t factor = form == BoundedForm::kCoded ? kCodedUnits : 1;
  BoundedPlan p;
  p.form = form;
  p.rows = rows;
  p.cols = cols;
  p.fused = cols <= kFusedCols;
  if (p.fused) {
    p.rows_per_unit = factor * std::max<int64_t>(1, kUnitValues / std::max<int64_t>(1, cols));
    p.unit_cols = cols;
    p.units_per_row = 1;
    p.unit_count = cols == 0 ? 0 : ceil_div(rows, p.rows_per_unit);
  } else {
    p.unit_cols = factor * kUnitValues;
    p.units_per_row = ceil_div(cols, p.unit_cols);
    p.unit_count = rows * p.units_per_row;  // at most numel
  }
  *plan = p;
  return Status::kOk;
}

int64_t bounded_unit_bound(const BoundedPlan& plan, int64_t unit) noexcept {
  return 1 + unit_blocks(plan, unit) * int64_t{kIntPackMaxBytes};
}

Status bounded_offsets(const BoundedPlan& plan, const int32_t* bytes, int64_t total_bytes,
                       int64_t* offset) noexcept {
  int64_t sum = 0;
  for (int64_t u = 0; u < plan.unit_count; ++u) {
    offset[u] = sum;
    // A coded value takes at least a bit, a packed block a header.
    if (bytes[u] < 1 + unit_blocks(plan, u) || bytes[u] > bounded_unit_bound(plan, u)) {
      return Status::kCorrupt;
    }
    sum += bytes[u];  // within 5 bytes a value
  }
  offset[plan.unit_count] = sum;
  return sum == total_bytes ? Status::kOk : Status::kCorrupt;
}

}  // namespace qvlmem
