// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/error_driver.h"
#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/error/error.h"

namespace qvlmem {
namespace {

// Unit by unit in reverse; and all units in one call, which must give the same bits.
ErrorMeasure measure(const std::vector<uint8_t>& x, const std::vector<uint8_t>& y, int64_t rows,
                     int64_t cols, DType dtype) {
  ErrorPlan plan;
  EXPECT_EQ(make_error_plan(rows, cols, dtype, &plan), Status::kOk);
  std::vector<ErrorPartial> partials(plan.unit_count + 1), at_once(plan.unit_count + 1);
  for (int64_t u = plan.unit_count; u-- > 0;) {
    measure_error_cpu(plan, x.data(), y.data(), u, u + 1, &partials[u]);
  }
  measure_error_cpu(plan, x.data(), y.data(), 0, plan.unit_count, at_once.data());
  const ErrorMeasure result = merge_errors(plan, partials.data());
  EXPECT_TRUE(same_errors(result, merge_errors(plan, at_once.data())));
  return result;
}

ErrorMeasure measure_on_every_isa(const std::vector<uint8_t>& x, const std::vector<uint8_t>& y,
                                  int64_t rows, int64_t cols, DType dtype) {
  ErrorMeasure reference;
  for_each_isa([&](Isa isa) {
    const ErrorMeasure m = measure(x, y, rows, cols, dtype);
    if (isa == Isa::kPortable) reference = m;
    EXPECT_TRUE(same_errors(m, reference));
  });
  return reference;
}

// The definition, in long double, whose exponent range holds every square.
ErrorMeasure by_definition(const std::vector<uint8_t>& x, const std::vector<uint8_t>& y,
                           int64_t rows, int64_t cols, DType dtype) {
  const auto ratio = [](long double e, long double n) { return e == 0 ? 0.0L : e / n; };
  long double e_all = 0, n_all = 0, worst = 0, top_error = 0, top = 0;
  for (int64_t r = 0; r < rows; ++r) {
    long double e = 0, n = 0;
    for (int64_t c = 0; c < cols; ++c) {
      const double a = element_of(x, dtype, r * cols + c), b = element_of(y, dtype, r * cols + c);
      if (!std::isfinite(a) || !std::isfinite(b)) {
        if (a == b || (std::isnan(a) && std::isnan(b))) continue;
        e = top_error = INFINITY;
        continue;
      }
      const long double d = static_cast<long double>(a) - b;
      e += d * d;
      n += static_cast<long double>(a) * a;
      top_error = std::max(top_error, std::fabs(d));
      top = std::max(top, std::fabs(static_cast<long double>(a)));
    }
    worst = std::max(worst, std::sqrt(ratio(e, n)));
    e_all += e;
    n_all += n;
  }
  return ErrorMeasure{static_cast<double>(std::sqrt(ratio(e_all, n_all))),
                      static_cast<double>(worst), static_cast<double>(ratio(top_error, top))};
}

void expect_near(double actual, double expected) {
  if (std::isinf(expected)) {
    EXPECT_EQ(actual, expected);
  } else {
    EXPECT_NEAR(actual, expected, 1e-12 * expected);
  }
}

void expect_as_defined(const std::vector<uint8_t>& x, const std::vector<uint8_t>& y, int64_t rows,
                       int64_t cols, DType dtype) {
  const ErrorMeasure m = measure_on_every_isa(x, y, rows, cols, dtype);
  const ErrorMeasure expected = by_definition(x, y, rows, cols, dtype);
  expect_near(m.relative, expected.relative);
  expect_near(m.worst_row, expected.worst_row);
  expect_near(m.element, expected.element);
}

TEST(ErrorKernelTest, AgreesWithTheDefinitionAndAlikeOnEveryIsa) {
  for (auto [rows, cols] : kErrorShapes) {
    for (DType dtype : kErrorDTypes) {
      SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols) + " dtype " +
                   std::to_string(int(dtype)));
      const ErrorCase p = noisy(rows * cols, 3);
      expect_as_defined(bytes_of(p.x, dtype), bytes_of(p.y, dtype), rows, cols, dtype);
    }
  }
}

TEST(ErrorKernelTest, ValuesWhoseSquaresLeaveTheRange) {
  for (DType dtype : kErrorDTypes) {
    for (auto [rows, cols] : {std::pair<int64_t, int64_t>{6, 5}, {6, 40}, {3, 5000}}) {
      const ErrorCase p = extreme_rows(rows, cols, dtype);
      SCOPED_TRACE(std::to_string(cols) + " dtype " + std::to_string(int(dtype)));
      expect_as_defined(bytes_of(p.x, dtype), bytes_of(p.y, dtype), rows, cols, dtype);
    }
  }
}

TEST(ErrorKernelTest, ATinyRowThatIsLostShowsInRowOnly) {
  for (DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const double tiny = dtype == DType::kFloat64 ? 1e-320 : 1e-44;
    for (int64_t cols : {3, 64}) {
      std::vector<double> x(2 * cols, 1e30), y(2 * cols, 1e30);
      for (int64_t c = 0; c < cols; ++c) x[cols + c] = tiny, y[cols + c] = 0.0;
      const ErrorMeasure m =
          measure_on_every_isa(bytes_of(x, dtype), bytes_of(y, dtype), 2, cols, dtype);
      EXPECT_EQ(m.worst_row, 1.0);
      EXPECT_LT(m.relative, 1e-60);
      EXPECT_LT(m.element, 1e-60);
    }
  }
}

TEST(ErrorKernelTest, NothingOutOfNothingIsNoError) {
  for (DType dtype : kErrorDTypes) {
    for (auto [rows, cols] : {std::pair<int64_t, int64_t>{0, 5}, {5, 0}, {0, 0}, {3, 4}, {3, 40}}) {
      const std::vector<double> zero(rows * cols, 0.0);
      const auto x = bytes_of(zero, dtype);
      const ErrorMeasure m = measure_on_every_isa(x, x, rows, cols, dtype);
      EXPECT_TRUE(same_errors(m, ErrorMeasure()));
    }
    for (int64_t cols : {1, 40}) {  // something out of nothing
      const auto zero = bytes_of(std::vector<double>(cols, 0.0), dtype);
      const auto y = bytes_of(std::vector<double>(cols, 1e-3), dtype);
      const ErrorMeasure m = measure_on_every_isa(zero, y, 1, cols, dtype);
      EXPECT_EQ(m.relative, INFINITY);
      EXPECT_EQ(m.worst_row, INFINITY);
      EXPECT_EQ(m.element, INFINITY);
    }
  }
}

TEST(ErrorKernelTest, WhatIsNotFiniteCountsAsAllOrNothing) {
  for (DType dtype : kErrorDTypes) {
    for (int64_t cols : {5, 37, 5000}) {
      for (int64_t at : {int64_t{0}, cols / 2, cols - 1}) {
        SCOPED_TRACE(std::to_string(cols) + " dtype " + std::to_string(int(dtype)));
        const ErrorCase clean = noisy(3 * cols, 5);
        const int64_t i = cols + at;
        for (double special : {double{NAN}, double{INFINITY}, -double{INFINITY}}) {
          ErrorCase p = clean;
          p.x[i] = p.y[i] = special;
          expect_as_defined(bytes_of(p.x, dtype), bytes_of(p.y, dtype), 3, cols, dtype);
          EXPECT_LT(measure(bytes_of(p.x, dtype), bytes_of(p.y, dtype), 3, cols, dtype).worst_row,
                    1.0);
          for (double other : {1.0, -special, special == special ? double{NAN} : 0.0}) {
            if (std::isnan(special) && std::isnan(other)) continue;
            p.y[i] = other;
            for (bool swap : {false, true}) {
              const auto x = bytes_of(swap ? p.y : p.x, dtype);
              const auto y = bytes_of(swap ? p.x : p.y, dtype);
              const ErrorMeasure m = measure_on_every_isa(x, y, 3, cols, dtype);
              EXPECT_EQ(m.relative, INFINITY);
              EXPECT_EQ(m.worst_row, INFINITY);
              EXPECT_EQ(m.element, INFINITY);
            }
          }
        }
      }
    }
  }
}

// Every x is 1 and every error 2^-12: float32 sums would stop growing at 2^24 elements.
TEST(ErrorKernelTest, LongRunsKeepTheirAccuracy) {
  const int64_t n = (int64_t{1} << 25) + 3;
  std::vector<uint8_t> x(n * 4), y(n * 4);
  const float one = 1.0f, other = 1.0f + 0x1p-12f;
  for (int64_t i = 0; i < n; ++i) {
    std::memcpy(&x[i * 4], &one, 4);
    std::memcpy(&y[i * 4], &other, 4);
  }
  ErrorPlan plan;
  ASSERT_EQ(make_error_plan(1, n, DType::kFloat32, &plan), Status::kOk);
  std::vector<ErrorPartial> partials(plan.unit_count);
  measure_error_cpu(plan, x.data(), y.data(), 0, plan.unit_count, partials.data());
  const ErrorMeasure m = merge_errors(plan, partials.data());
  EXPECT_EQ(m.relative, 0x1p-12);
  EXPECT_EQ(m.worst_row, 0x1p-12);
  EXPECT_EQ(m.element, 0x1p-12);
}

TEST(ErrorPlanTest, RefusesWhatItCannotDo) {
  ErrorPlan plan;
  EXPECT_EQ(make_error_plan(-1, 4, DType::kFloat32, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_error_plan(4, 4, DType::kInt8, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_error_plan(int64_t{1} << 40, int64_t{1} << 40, DType::kFloat32, &plan),
            Status::kOverflow);
  ASSERT_EQ(make_error_plan(int64_t{1} << 50, 0, DType::kFloat32, &plan), Status::kOk);
  EXPECT_EQ(plan.unit_count, 0);
}

}  // namespace
}  // namespace qvlmem
