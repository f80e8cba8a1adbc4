// SPDX-License-Identifier: Apache-2.0
#include "ops/quantize_ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace qvlmem::ops {
namespace {

TEST(QuantizeOpsTest, StridesDoNotMatter) {
  at::manual_seed(1);
  const at::Tensor base = at::randn({6, 40, 72});
  const at::Tensor views[] = {
      base.transpose(0, 2), base.slice(1, 3, 30, 2), base[2],
      base.select(2, 5),    base.narrow(2, 1, 71),   base[0][0].expand({3, 72})};
  for (const at::Tensor& x : views) {
    for (int64_t bits : {8, 4}) {
      for (int64_t group : {0, -1, 32}) {
        const auto [q, s, z] = quantize_cpu(x, bits, false, group, 7);
        const auto [q2, s2, z2] = quantize_cpu(x.clone(), bits, false, group, 7);
        EXPECT_TRUE(at::equal(q, q2) && at::equal(s, s2) && at::equal(z, z2));
        const at::Tensor y = dequantize_cpu(q, s, z, x.sizes(), bits, group, at::kFloat);
        EXPECT_TRUE(y.is_contiguous());
        EXPECT_EQ(y.sizes(), x.sizes());
      }
    }
  }
}

TEST(QuantizeOpsTest, ThreadsDoNotMatter) {
  at::manual_seed(2);
  const at::Tensor inputs[] = {at::randn({1000003}), at::randn({3, 200001}),
                               at::randn({4099, 129})};
  const int before = at::get_num_threads();
  for (const at::Tensor& x : inputs) {
    for (int64_t group : {0, -1, 64, 65536}) {
      for (int64_t bits : {8, 4}) {
        at::set_num_threads(1);
        const auto [q, s, z] = quantize_cpu(x, bits, false, group, 3);
        at::set_num_threads(2);
        const auto [q2, s2, z2] = quantize_cpu(x, bits, false, group, 3);
        EXPECT_TRUE(at::equal(q, q2) && at::equal(s, s2) && at::equal(z, z2));
      }
    }
  }
  at::set_num_threads(before);
}

TEST(QuantizeOpsTest, MetaAgreesOnShapes) {
  const std::vector<std::vector<int64_t>> shapes = {{}, {0}, {5}, {3, 0}, {0, 3}, {2, 3, 73}};
  for (const auto& shape : shapes) {
    const at::Tensor x = at::rand(shape);
    for (int64_t bits : {8, 4}) {
      for (bool symmetric : {true, false}) {
        for (int64_t group : {0, -1, 16}) {
          const auto [q, s, z] = quantize_cpu(x, bits, symmetric, group, std::nullopt);
          const auto [mq, ms, mz] =
              quantize_meta(x.to(at::kMeta), bits, symmetric, group, std::nullopt);
          EXPECT_EQ(q.sizes(), mq.sizes());
          EXPECT_EQ(s.sizes(), ms.sizes());
          EXPECT_EQ(z.sizes(), mz.sizes());
          EXPECT_EQ(q.dtype(), mq.dtype());
          EXPECT_EQ(dequantize_cpu(q, s, z, shape, bits, group, std::nullopt).sizes(), x.sizes());
        }
      }
    }
  }
}

TEST(QuantizeOpsTest, HostilePartsAreRefusedOrDecodeToSomething) {
  const auto [q, s, z] = quantize_cpu(at::randn({3, 10}), 8, false, 4, std::nullopt);
  EXPECT_THROW(dequantize_cpu(q, s, z, {3, 11}, 8, 4, std::nullopt), c10::ValueError);
  EXPECT_THROW(dequantize_cpu(q, s, z, {3, 10}, 4, 4, std::nullopt), c10::TypeError);
  EXPECT_THROW(dequantize_cpu(q, s, z, {3, 10}, 8, 5, std::nullopt), c10::ValueError);
  EXPECT_THROW(dequantize_cpu(q, s, z, {3, -10}, 8, 4, std::nullopt), c10::ValueError);
  EXPECT_THROW(dequantize_cpu(q, s.to(at::kDouble), z, {3, 10}, 8, 4, std::nullopt),
               c10::TypeError);
  const at::Tensor extreme = at::full_like(z, std::numeric_limits<int32_t>::min());
  const at::Tensor y = dequantize_cpu(q, s, extreme, {3, 10}, 8, 4, std::nullopt);
  EXPECT_TRUE(at::isfinite(y).all().item<bool>());
}

TEST(QuantizeOpsTest, SaturatesInsteadOfOverflowing) {
  const at::Tensor x = at::full({64}, 3e38);
  const auto [q, s, z] = quantize_cpu(x, 8, true, 0, std::nullopt);
  const at::Tensor y = dequantize_cpu(q, s, z, x.sizes(), 8, 0, at::kHalf);
  EXPECT_TRUE((y == 65504).all().item<bool>());
}

}  // namespace
}  // namespace qvlmem::ops
