// SPDX-License-Identifier: Apache-2.0
#include "ops/lossless_ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "ops/base/reserved_bytes.h"
#include "ops/codec/codec.h"

namespace qvlmem::ops {
namespace {

at::Tensor decoded(const at::Tensor& bytes, const at::Tensor& x) {
  return lossless_decode_cpu(bytes, x.sizes(), x.scalar_type());
}

TEST(LosslessOpsTest, StridesDoNotMatter) {
  at::manual_seed(1);
  const at::Tensor base = at::randn({6, 40, 72}).to(at::kBFloat16);
  const at::Tensor views[] = {
      base.transpose(0, 2), base.slice(1, 3, 30, 2), base[2],
      base.select(2, 5),    base.narrow(2, 1, 71),   base[0][0].expand({3, 72})};
  for (const at::Tensor& x : views) {
    for (int64_t level : {1, 2}) {
      const at::Tensor bytes = lossless_encode_cpu(x, level);
      EXPECT_TRUE(at::equal(bytes, lossless_encode_cpu(x.clone(), level)));
      const at::Tensor y = decoded(bytes, x);
      EXPECT_TRUE(y.is_contiguous());
      EXPECT_TRUE(at::equal(y, x));
    }
  }
}

// Units are placed by whichever thread is ready: the order must not show.
TEST(LosslessOpsTest, ThreadsDoNotMatter) {
  at::manual_seed(2);
  const at::Tensor inputs[] = {at::randn({1000003}), at::randint(9, {3000001}).to(at::kByte),
                               at::randn({4099, 129}).to(at::kHalf), at::zeros({700000})};
  const int before = at::get_num_threads();
  for (const at::Tensor& x : inputs) {
    for (int64_t level : {1, 2}) {
      at::set_num_threads(1);
      const at::Tensor bytes = lossless_encode_cpu(x, level);
      for (int threads : {2, 5}) {
        at::set_num_threads(threads);
        EXPECT_TRUE(at::equal(bytes, lossless_encode_cpu(x, level)));
        EXPECT_TRUE(at::equal(decoded(bytes, x), x));
      }
    }
  }
  at::set_num_threads(before);
}

TEST(LosslessOpsTest, HoldsOnlyItsBytes) {
  for (int64_t numel : {0, 1, 100, 70000, 5000000}) {
    const at::Tensor bytes = lossless_encode_cpu(at::ones({numel}), 1);
    EXPECT_EQ(static_cast<int64_t>(bytes.storage().nbytes()), bytes.numel());
    EXPECT_LE(bytes.numel(), 16 * 5 + 64 + 4 * numel / 1000);
  }
  ReservedBytes room(int64_t{1} << 30);  // never touched, never there
  room.data()[0] = 42;
  const at::Tensor one = room.take(1);
  EXPECT_EQ(one.sizes(), at::IntArrayRef({1}));
  EXPECT_EQ(one.item<uint8_t>(), 42);
  EXPECT_EQ(one.clone().add_(1).item<uint8_t>(), 43);
}

TEST(LosslessOpsTest, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::randn({30, 7});
  const at::Tensor bytes = lossless_encode_cpu(x, 2);
  EXPECT_THROW(lossless_encode_cpu(x, 0), c10::ValueError);
  EXPECT_THROW(lossless_encode_cpu(x, 3), c10::ValueError);
  EXPECT_THROW(lossless_decode_cpu(bytes, {30, 8}, at::kFloat), c10::ValueError);
  EXPECT_THROW(lossless_decode_cpu(bytes, {-30, -7}, at::kFloat), c10::ValueError);
  EXPECT_THROW(lossless_decode_cpu(bytes, {30, 7}, at::kInt), c10::TypeError);
  EXPECT_THROW(lossless_decode_cpu(bytes.to(at::kInt), {30, 7}, at::kFloat), c10::TypeError);
  EXPECT_THROW(lossless_decode_cpu(bytes.view({1, -1}), {30, 7}, at::kFloat), c10::ValueError);
  EXPECT_THROW(lossless_decode_cpu(bytes.slice(0, 0, -1), {30, 7}, at::kFloat), c10::ValueError);
  EXPECT_THROW(lossless_decode_cpu(at::cat({bytes, bytes}), {30, 7}, at::kFloat), c10::ValueError);
  EXPECT_THROW(lossless_decode_cpu(at::empty({0}, at::kByte), {0}, at::kFloat), c10::ValueError);
  EXPECT_TRUE(at::equal(lossless_decode_cpu(bytes, {7, 30}, at::kFloat), x.view({7, 30})));
}

TEST(LosslessOpsTest, MetaAgreesOnShapes) {
  const at::Tensor bytes = at::empty({100}, at::kByte).to(at::kMeta);
  const at::Tensor y = lossless_decode_meta(bytes, c10::fromIntArrayRefSlow({2, 0, 3}), at::kHalf);
  EXPECT_TRUE(y.is_meta());
  EXPECT_EQ(y.sizes(), at::IntArrayRef({2, 0, 3}));
  EXPECT_EQ(y.scalar_type(), at::kHalf);
}

TEST(LosslessCodecTest, TakesEveryDTypeAndChecksItsPart) {
  const Codec* codec = find_codec("lossless");
  ASSERT_NE(codec, nullptr);
  const at::Tensor x = at::arange(5000).to(at::kInt);
  const CompressedTensorPtr c = compress_with(*codec, x, {});
  EXPECT_TRUE(at::equal(c->decompress(), x));
  EXPECT_GT(c->ratio(), 2.0);
  EXPECT_EQ(c->error().relative, 0.0);
  EXPECT_TRUE(at::equal(unpack(pack(c), std::nullopt)->decompress(), x));
  const TensorInfo other{{4999}, at::kInt};
  EXPECT_THROW(codec->check(c->payload(), other), c10::ValueError);
  const TensorInfo as_float{{5000}, at::kFloat};
  EXPECT_THROW(codec->check(c->payload(), as_float), c10::TypeError);
}

}  // namespace
}  // namespace qvlmem::ops
