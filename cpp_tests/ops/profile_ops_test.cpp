// SPDX-License-Identifier: Apache-2.0
#include "ops/profile_ops.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace qvlmem::ops {
namespace {

TEST(ProfileOpsTest, AllButTheLastDimensionAreRows) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({4, 10, 72});
  EXPECT_TRUE(at::equal(profile_values_cpu(x), profile_values_cpu(x.reshape({40, 72}))));
  EXPECT_FALSE(at::equal(profile_values_cpu(x), profile_values_cpu(x.reshape({4, 720}))));
}

TEST(ProfileOpsTest, StridesDoNotMatter) {
  at::manual_seed(2);
  const at::Tensor base = at::randn({300, 400});
  for (const at::Tensor& x : {base.t(), base.slice(0, 1, 200, 3), base[0].expand({300, 400})}) {
    EXPECT_TRUE(at::equal(profile_values_cpu(x), profile_values_cpu(x.clone())));
  }
}

TEST(ProfileOpsTest, EveryShapeHasTenValues) {
  for (const auto& shape :
       std::vector<std::vector<int64_t>>{{}, {0}, {1}, {0, 3}, {3, 0}, {2, 3}}) {
    const at::Tensor x = at::full(shape, -2.0);
    const at::Tensor fields = profile_values_cpu(x);
    EXPECT_EQ(fields.sizes(), at::IntArrayRef({10}));
    EXPECT_EQ(fields[0].item<double>(), static_cast<double>(x.numel()));
    EXPECT_EQ(fields[4].item<double>(), x.numel() == 0 ? 0.0 : 2.0);
    const at::Tensor meta = profile_values_meta(x.to(at::kMeta));
    EXPECT_EQ(meta.sizes(), fields.sizes());
    EXPECT_EQ(meta.dtype(), fields.dtype());
  }
  EXPECT_THROW(profile_values_cpu(at::ones({3}, at::kDouble)), c10::TypeError);
}

}  // namespace
}  // namespace qvlmem::ops
