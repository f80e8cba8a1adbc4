// SPDX-License-Identifier: Apache-2.0
// Measures what came back (y) against what went in (x), both [rows, cols], dense, of one dtype.
//
//   relative   ||x - y|| / ||x||, Frobenius
//   worst_row  the largest of the same over the rows
//   element    max |x - y| / max |x|
//
// 0/0 counts as 0 and e/0 as infinity. Where x or y is not finite: the same infinity, or two NaN,
// count as no error and add nothing to a norm; anything else is an infinite error.
//
// Sums are float64, where differences and squares of float32 and narrower values are exact or
// rounded once, in an order that depends on the shape alone: element i of a run goes to lane
// i mod kErrorLanes, lanes are added pairwise, then runs, rows and units in order. So the result is
// the same for every ISA, back end and split, with a relative rounding error of about 2^-52 a run
// of kErrorRun elements summed (pieces of sums add up, single elements do not). float64 values are
// scaled run by run, for their squares may leave float64's range.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/status.h"
#include "kernels/error/error_math.h"

namespace qvlmem {

constexpr int64_t kErrorLanes = 16;
constexpr int64_t kErrorRun = 2048;
// Elements of a unit: enough that few partials are kept (1 MiB of them for 2^30 elements), few
// enough to balance.
constexpr int64_t kErrorUnit = 65536;
static_assert(kErrorUnit % kErrorRun == 0, "runs do not depend on where a row is cut into units");

struct ErrorPlan {
  int64_t rows = 0;
  int64_t cols = 0;
  DType dtype = DType::kFloat32;  // float32, float16, bfloat16 or float64
  int64_t rows_per_unit = 1;      // short rows: a unit is several of them
  int64_t units_per_row = 1;      // long rows: a unit is a piece of one
  int64_t unit_count = 0;
};

// What one unit adds up to.
struct ErrorPartial {
  ErrorSums sums;
  double worst_row_sq = 0.0;  // over the unit's rows; meaningless where a row has several units
};

struct ErrorMeasure {
  double relative = 0.0;
  double worst_row = 0.0;
  double element = 0.0;
};

// kInvalidArgument for another dtype or a negative size, kOverflow where the bytes exceed 63 bits.
Status make_error_plan(int64_t rows, int64_t cols, DType dtype, ErrorPlan* plan) noexcept;

// The values of a unit: `rows` runs of `cols`, the first at the flat position `begin`, one after
// the other.
struct ErrorUnit {
  int64_t begin, rows, cols;
  int64_t end() const { return begin + rows * cols; }
};

inline ErrorUnit error_unit(const ErrorPlan& plan, int64_t unit) {
  const int64_t row = unit / plan.units_per_row * plan.rows_per_unit;
  const int64_t col = unit % plan.units_per_row * kErrorUnit;
  const int64_t rows = plan.rows - row, cols = plan.cols - col;
  return ErrorUnit{row * plan.cols + col, rows < plan.rows_per_unit ? rows : plan.rows_per_unit,
                   cols < kErrorUnit ? cols : kErrorUnit};
}

// Measures one unit, of which x and y are the values alone.
void measure_error_unit_cpu(const ErrorPlan& plan, int64_t unit, const void* x, const void* y,
                            ErrorPartial* partial) noexcept;

// Measures units [unit_begin, unit_end): partials[u - unit_begin] for each. Reads x and y once.
void measure_error_cpu(const ErrorPlan& plan, const void* x, const void* y, int64_t unit_begin,
                       int64_t unit_end, ErrorPartial* partials) noexcept;

// Adds up plan.unit_count partials, in order.
ErrorMeasure merge_errors(const ErrorPlan& plan, const ErrorPartial* partials) noexcept;

}  // namespace qvlmem
