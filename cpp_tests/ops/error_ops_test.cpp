// SPDX-License-Identifier: Apache-2.0
#include "ops/error_ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <limits>

namespace qvlmem::ops {
namespace {

bool same(const ErrorMeasure& a, const ErrorMeasure& b) {
  return a.relative == b.relative && a.worst_row == b.worst_row && a.element == b.element;
}

TEST(ErrorOpsTest, AgreesWithTheDefinition) {
  at::manual_seed(1);
  const std::vector<std::vector<int64_t>> shapes = {
      {7}, {40, 129}, {2, 3, 72}, {3, 70001}, {500, 1}};
  for (const auto& shape : shapes) {
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble}) {
      const at::Tensor x = at::randn(shape).to(dtype);
      const at::Tensor y = (x.to(at::kDouble) + 0.1 * at::randn(shape, at::kDouble)).to(dtype);
      const at::Tensor a = x.to(at::kDouble), d = a - y.to(at::kDouble);
      const ErrorMeasure m = measure_error_cpu(x, y);
      EXPECT_NEAR(m.relative, (d.norm() / a.norm()).item<double>(), 1e-12);
      const at::Tensor rows = at::linalg_vector_norm(d, 2, -1) / at::linalg_vector_norm(a, 2, -1);
      EXPECT_NEAR(m.worst_row, rows.max().item<double>(), 1e-9 * m.worst_row);
      EXPECT_NEAR(m.element, (d.abs().max() / a.abs().max()).item<double>(), 1e-12);
    }
  }
}

TEST(ErrorOpsTest, StridesAndThreadsDoNotMatter) {
  at::manual_seed(2);
  const int before = at::get_num_threads();
  const at::Tensor x = at::randn({1009, 1200}).t(), y = x + 0.01 * at::randn({1200, 1009});
  at::set_num_threads(1);
  const ErrorMeasure expected = measure_error_cpu(x.contiguous(), y);
  at::set_num_threads(2);
  EXPECT_TRUE(same(measure_error_cpu(x, y), expected));
  EXPECT_TRUE(same(measure_error_cpu(x, y.t().contiguous().t()), expected));
  at::set_num_threads(before);
}

TEST(ErrorOpsTest, EmptyAndZeroDimensionalTensors) {
  EXPECT_TRUE(same(measure_error_cpu(at::empty({0, 5}), at::empty({0, 5})), ErrorMeasure()));
  const ErrorMeasure m = measure_error_cpu(at::full({}, 4.0), at::full({}, 3.0));
  EXPECT_TRUE(same(m, ErrorMeasure{0.25, 0.25, 0.25}));
}

}  // namespace
}  // namespace qvlmem::ops
