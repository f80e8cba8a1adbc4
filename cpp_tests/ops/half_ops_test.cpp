// SPDX-License-Identifier: Apache-2.0
#include "ops/half_ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <limits>

namespace qvlmem::ops {
namespace {

constexpr at::ScalarType kDTypes[] = {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble};

TEST(HalfOpsTest, StridesDoNotMatter) {
  at::manual_seed(1);
  for (const at::ScalarType dtype : kDTypes) {
    const at::Tensor base = at::randn({6, 40, 72}).to(dtype);
    const at::Tensor views[] = {
        base.transpose(0, 2), base.slice(1, 3, 30, 2), base[2],
        base.select(2, 5),    base.narrow(2, 1, 71),   base[0][0].expand({3, 72})};
    for (const at::Tensor& x : views) {
      const auto [half, scale] = to_fp16_cpu(x);
      const auto [half2, scale2] = to_fp16_cpu(x.clone());
      EXPECT_TRUE(at::equal(half, half2) && at::equal(scale, scale2));
      EXPECT_EQ(half.sizes(), x.sizes());
      EXPECT_TRUE(half.is_contiguous());
      const at::Tensor y = from_fp16_cpu(half.transpose(0, -1), scale, dtype);
      EXPECT_TRUE(y.is_contiguous());
      EXPECT_TRUE(at::allclose(y, x.transpose(0, -1), 1e-3, 1e-6));
    }
  }
}

TEST(HalfOpsTest, ThreadsDoNotMatterEvenWhereThePassIsRepeated) {
  at::manual_seed(2);
  const int before = at::get_num_threads();
  for (const at::ScalarType dtype : kDTypes) {
    for (const double outlier : {1.0, 3e4}) {
      at::Tensor x = at::randn({1000003}).to(dtype);
      x[654321] = outlier;
      at::set_num_threads(1);
      const auto [half, scale] = to_fp16_cpu(x);
      const at::Tensor y = from_fp16_cpu(half, scale, dtype);
      at::set_num_threads(2);
      const auto [half2, scale2] = to_fp16_cpu(x);
      EXPECT_TRUE(at::equal(half, half2) && at::equal(scale, scale2));
      EXPECT_TRUE(at::equal(y, from_fp16_cpu(half, scale, dtype)));
      EXPECT_EQ(y[654321].item<double>(), x[654321].item<double>());
    }
  }
  at::set_num_threads(before);
}

TEST(HalfOpsTest, MetaAgreesOnShapesAndDtypes) {
  const std::vector<std::vector<int64_t>> shapes = {{}, {0}, {5}, {3, 0}, {0, 3}, {2, 3, 73}};
  for (const auto& shape : shapes) {
    for (const at::ScalarType dtype : kDTypes) {
      const at::Tensor x = at::ones(shape, dtype);
      const auto [half, scale] = to_fp16_cpu(x);
      const auto [meta_half, meta_scale] = to_fp16_meta(x.to(at::kMeta));
      EXPECT_EQ(half.sizes(), meta_half.sizes());
      EXPECT_EQ(half.dtype(), meta_half.dtype());
      EXPECT_EQ(scale.sizes(), meta_scale.sizes());
      EXPECT_EQ(scale.dtype(), meta_scale.dtype());
      const at::Tensor y = from_fp16_cpu(half, scale, dtype);
      const at::Tensor meta_y = from_fp16_meta(meta_half, meta_scale, dtype);
      EXPECT_EQ(y.sizes(), meta_y.sizes());
      EXPECT_EQ(y.dtype(), meta_y.dtype());
      EXPECT_TRUE(at::equal(x, y));
    }
  }
}

TEST(HalfOpsTest, RefusesPartsThatDoNotFit) {
  const auto [half, scale] = to_fp16_cpu(at::randn({3, 4}));
  EXPECT_THROW(from_fp16_cpu(half.to(at::kFloat), scale, std::nullopt), c10::TypeError);
  EXPECT_THROW(from_fp16_cpu(half, scale.to(at::kInt), std::nullopt), c10::TypeError);
  EXPECT_THROW(from_fp16_cpu(half, at::ones({2}), std::nullopt), c10::ValueError);
  EXPECT_THROW(from_fp16_cpu(half, at::empty({0}), std::nullopt), c10::ValueError);
  EXPECT_THROW(from_fp16_cpu(half, scale, at::kInt), c10::TypeError);
  EXPECT_THROW(to_fp16_cpu(at::ones({3}, at::kInt)), c10::TypeError);
  EXPECT_THROW(to_fp16_meta(at::ones({3}, at::kInt).to(at::kMeta)), c10::TypeError);
}

}  // namespace
}  // namespace qvlmem::ops
