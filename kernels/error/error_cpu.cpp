// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/base/checked.h"
#include "kernels/error/error.h"
#include "kernels/error/error_simd.h"

namespace qvlmem {
Status make_error_plan(int64_t rows, int64_t cols, DType dtype, ErrorPlan* plan) noexcept {
  if (rows < 0 || cols < 0 || !(is_lossy_dtype(dtype) || dtype == DType::kFloat64)) {
    return Status::kInvalidArgument;
  }
  int64_t numel, bytes;
  if (!checked_mul(rows, cols, &numel) || !checked_mul(numel, 8, &bytes)) return Status::kOverflow;
  ErrorPlan p;
  p.rows = rows;
  p.cols = cols;
  p.dtype = dtype;
  if (numel > 0) {
    p.rows_per_unit = std::max<int64_t>(kErrorUnit / cols, 1);
    p.units_per_row = ceil_div(cols, kErrorUnit);
    p.unit_count = ceil_div(rows, p.rows_per_unit) * p.units_per_row;
  }
  *plan = p;
  return Status::kOk;
}

void measure_error_unit_cpu(const ErrorPlan& plan, int64_t unit, const void* x, const void* y,
                            ErrorPartial* partial) noexcept {
  const ErrorUnit values = error_unit(plan, unit);
  QVLMEM_SIMD_PICK(error_rows)
  (x, y, plan.dtype, static_cast<size_t>(values.rows), static_cast<size_t>(values.cols), partial);
}

void measure_error_cpu(const ErrorPlan& plan, const void* x, const void* y, int64_t unit_begin,
                       int64_t unit_end, ErrorPartial* partials) noexcept {
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t offset = error_unit(plan, unit).begin * dtype_bytes(plan.dtype);
    measure_error_unit_cpu(plan, unit, static_cast<const char*>(x) + offset,
                           static_cast<const char*>(y) + offset, &partials[unit - unit_begin]);
  }
}

ErrorMeasure merge_errors(const ErrorPlan& plan, const ErrorPartial* partials) noexcept {
  ErrorSums total, row;
  double worst_row_sq = 0.0;
  for (int64_t unit = 0; unit < plan.unit_count; ++unit) {
    const ErrorPartial& partial = partials[unit];
    add_error_sums(partial.sums, &total);
    if (plan.units_per_row == 1) {
      worst_row_sq = std::max(worst_row_sq, partial.worst_row_sq);
      continue;
    }
    if (unit % plan.units_per_row == 0) row = ErrorSums();
    add_error_sums(partial.sums, &row);
    if ((unit + 1) % plan.units_per_row == 0) raise_worst_row(row, &worst_row_sq);
  }
  return ErrorMeasure{std::sqrt(error_ratio(total.error_sq, total.norm_sq)),
                      std::sqrt(worst_row_sq), error_ratio(total.max_error, total.max_abs)};
}

}  // namespace qvlmem
