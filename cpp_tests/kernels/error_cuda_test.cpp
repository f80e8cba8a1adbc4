// SPDX-License-Identifier: Apache-2.0
// The error measurement on CUDA gives the bits of the CPU's.
#include "kernels/error/error_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "cpp_tests/kernels/cuda_fixture.h"
#include "cpp_tests/kernels/error_driver.h"
#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {
namespace {

class ErrorCudaTest : public CudaTest {};

// Every partial, and what they add up to, which is returned.
ErrorMeasure expect_as_on_cpu(const std::vector<double>& x, const std::vector<double>& y,
                              int64_t rows, int64_t cols, DType dtype) {
  SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols) + " dtype " +
               std::to_string(int(dtype)));
  const auto a = bytes_of(x, dtype), b = bytes_of(y, dtype);
  const size_t size = rows * cols * dtype_bytes(dtype);
  ErrorPlan plan;
  EXPECT_EQ(make_error_plan(rows, cols, dtype, &plan), Status::kOk);
  std::vector<ErrorPartial> expected(plan.unit_count);
  measure_error_cpu(plan, a.data(), b.data(), 0, plan.unit_count, expected.data());
  // At alignments of their own.
  DeviceBytes on_device_x(a.data(), size, dtype_bytes(dtype)), on_device_y(b.data(), size);
  DeviceBytes partials(plan.unit_count * sizeof(ErrorPartial));
  EXPECT_EQ(measure_error_cuda(plan, on_device_x.data(), on_device_y.data(),
                               partials.as<ErrorPartial>(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const auto got = partials.read<ErrorPartial>();
  for (int64_t u = 0; u < plan.unit_count; ++u) {
    EXPECT_EQ(got[u].sums.error_sq, expected[u].sums.error_sq) << "unit " << u;
    EXPECT_EQ(got[u].sums.norm_sq, expected[u].sums.norm_sq) << "unit " << u;
    EXPECT_EQ(got[u].sums.max_error, expected[u].sums.max_error) << "unit " << u;
    EXPECT_EQ(got[u].sums.max_abs, expected[u].sums.max_abs) << "unit " << u;
    EXPECT_EQ(got[u].sums.exponent, expected[u].sums.exponent) << "unit " << u;
    EXPECT_EQ(got[u].worst_row_sq, expected[u].worst_row_sq) << "unit " << u;
    if (testing::Test::HasFailure()) break;
  }
  const ErrorMeasure measure = merge_errors(plan, got.data());
  EXPECT_TRUE(same_errors(measure, merge_errors(plan, expected.data())));
  return measure;
}

TEST_F(ErrorCudaTest, GivesTheBitsOfTheCpu) {
  for (auto [rows, cols] : kErrorShapes)
    for (DType dtype : kErrorDTypes) {
      const ErrorCase p = noisy(rows * cols, 3);
      const ErrorMeasure m = expect_as_on_cpu(p.x, p.y, rows, cols, dtype);
      EXPECT_GT(m.relative, 0.0);
      if (HasFailure()) return;
    }
}

TEST_F(ErrorCudaTest, TakesValuesWhoseSquaresLeaveTheRange) {
  for (DType dtype : kErrorDTypes)
    for (auto [rows, cols] :
         {std::pair<int64_t, int64_t>{6, 5}, {6, 40}, {3, 5000}, {4000, 7}, {3000, 16}}) {
      const ErrorCase p = extreme_rows(rows, cols, dtype);
      expect_as_on_cpu(p.x, p.y, rows, cols, dtype);
      if (HasFailure()) return;
    }
}

// Of float64 a run's scale comes from its largest finite magnitude, in x or in y.
TEST_F(ErrorCudaTest, ScalesDoublesAsTheCpuDoes) {
  const double limit = std::numeric_limits<double>::max();
  const double tops[] = {0.0, 0x1p-1074, 0x1.8p-1043, 0x1p-1022, 0x1.fp-3, 0x1.fp1022, limit};
  for (int64_t cols : {3, 40, 2100})
    for (double top : tops)
      for (double other : {0.0, -1.0, 0.5, 1e-200})
        for (bool swap : {false, true}) {
          std::vector<double> x(cols, top), y(cols, top * other);
          x[cols / 2] = 1e-300;
          y[cols - 1] = 0x1p-1074;
          expect_as_on_cpu(swap ? y : x, swap ? x : y, 1, cols, DType::kFloat64);
          if (HasFailure()) return;
        }
}

// The one error's square is below the smallest double, beside which the run's largest stands.
TEST_F(ErrorCudaTest, LosesWhatTheCpuLoses) {
  for (int64_t cols : {3, 40, 2100}) {
    std::vector<double> x(cols, 1.0), y(cols, 1.0);
    x[cols / 2] = 1e-200;
    y[cols / 2] = 0.0;
    const ErrorMeasure m = expect_as_on_cpu(x, y, 1, cols, DType::kFloat64);
    EXPECT_EQ(m.element > 0.0, cols < kErrorLanes);
  }
}

// Nothing but zeros and subnormal numbers, a few of them normal in the last row.
TEST_F(ErrorCudaTest, TakesTheSmallestNumbers) {
  for (DType dtype : kErrorDTypes) {
    const double least = dtype == DType::kFloat64    ? 0x1p-1074
                         : dtype == DType::kFloat32  ? 0x1p-149
                         : dtype == DType::kBFloat16 ? 0x1p-133
                                                     : 0x1p-24;
    for (int64_t cols : {9, 200, 4200}) {
      std::vector<double> x(3 * cols), y(3 * cols);
      for (int64_t i = 0; i < 3 * cols; ++i) {
        x[i] = i / cols == 1 ? (i % 2 ? -0.0 : 0.0) : least * static_cast<double>(i % 7 - 3);
        y[i] = i / cols == 1 && i % 5 ? 0.0 : least * static_cast<double>(i % 3);
        if (i / cols == 2 && i % 41 == 0) x[i] = 0x1p-14, y[i] = -0.0;
      }
      for (bool swap : {false, true}) {
        expect_as_on_cpu(swap ? y : x, swap ? x : y, 3, cols, dtype);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(ErrorCudaTest, CountsWhatIsNotFiniteAsAllOrNothing) {
  for (DType dtype : kErrorDTypes)
    for (int64_t cols : {5, 37, 5000})
      for (int64_t at : {int64_t{0}, cols / 2, cols - 1})
        for (double special : {double{NAN}, double{INFINITY}, -double{INFINITY}})
          for (double other : {1.0, double{NAN}, double{INFINITY}, -double{INFINITY}}) {
            ErrorCase p = noisy(3 * cols, 5);
            p.x[cols + at] = special;
            p.y[cols + at] = other;
            const bool alike = special == other || (std::isnan(special) && std::isnan(other));
            for (bool swap : {false, true}) {
              const ErrorMeasure m =
                  expect_as_on_cpu(swap ? p.y : p.x, swap ? p.x : p.y, 3, cols, dtype);
              EXPECT_EQ(std::isinf(m.worst_row), !alike);
              EXPECT_EQ(std::isinf(m.element), !alike);
            }
            if (HasFailure()) return;
          }
}

TEST_F(ErrorCudaTest, FindsTheWorstRowWhereverItStands) {
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{1000, 3}, {300, 64}, {70, 2100}})
    for (int64_t worst : {int64_t{0}, rows / 2, rows - 1})
      for (DType dtype : kErrorDTypes) {
        std::vector<double> x(rows * cols, 1.0), y(rows * cols, 1.0);
        for (int64_t c = 0; c < cols; ++c) x[worst * cols + c] = 0x1p-6;
        y[worst * cols + cols - 1] = 1.0;
        EXPECT_GT(expect_as_on_cpu(x, y, rows, cols, dtype).worst_row, 60.0);
        y = x;
        const ErrorMeasure m = expect_as_on_cpu(x, y, rows, cols, dtype);
        EXPECT_TRUE(same_errors(m, ErrorMeasure()));
        if (HasFailure()) return;
      }
}

TEST_F(ErrorCudaTest, FindsNothingInNothing) {
  for (DType dtype : kErrorDTypes)
    for (auto [rows, cols] : {std::pair<int64_t, int64_t>{0, 5}, {5, 0}, {0, 0}, {3, 4}, {3, 40}}) {
      const std::vector<double> zero(rows * cols, 0.0);
      EXPECT_TRUE(same_errors(expect_as_on_cpu(zero, zero, rows, cols, dtype), ErrorMeasure()));
    }
}

}  // namespace
}  // namespace qvlmem
