// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/lossless_driver.h"
#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {
namespace {

TEST(LosslessKernelTest, EveryDtypeComesBackBitByBitAndEncodesAlikeOnEveryIsa) {
  for (int d = 0; d < kDTypeCount; ++d) {
    const DType dtype = static_cast<DType>(d);
    for (int64_t count : kLosslessCounts) {
      const Bytes x = lossless_sample(dtype, count, 7);
      for (int level : {1, 2}) {
        SCOPED_TRACE(lossless_name(dtype, count, level));
        Bytes reference;
        for_each_isa([&](Isa isa) {
          const Bytes bytes = lossless_encode(x, count, dtype, level);
          if (isa == Isa::kPortable) reference = bytes;
          ASSERT_EQ(bytes, reference);
          ASSERT_EQ(bytes, lossless_encode(x, count, dtype, level, true));
          Bytes y;
          ASSERT_EQ(lossless_decode(bytes.data(), bytes.size(), &y), Status::kOk);
          ASSERT_TRUE(std::equal(y.begin(), y.end(), x.begin()));
          ASSERT_EQ(y.size() + 1, x.size());
        });
      }
    }
  }
}

TEST(LosslessKernelTest, SeveralUnitsComeBack) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat64, DType::kUInt8}) {
    const int64_t count = 3 * kLosslessUnitBytes / dtype_bytes(dtype) + 77;
    const Bytes x = lossless_sample(dtype, count, 8);
    for (int level : {1, 2}) {
      SCOPED_TRACE(lossless_name(dtype, count, level));
      Bytes reference;
      for_each_isa([&](Isa isa) {
        const Bytes bytes = lossless_encode(x, count, dtype, level);
        if (isa == Isa::kPortable) reference = bytes;
        ASSERT_EQ(bytes, reference);
        Bytes y;
        ASSERT_EQ(lossless_decode(bytes.data(), bytes.size(), &y), Status::kOk);
        ASSERT_TRUE(std::equal(y.begin(), y.end(), x.begin()));
      });
    }
  }
}

double ratio(const Bytes& x, int64_t count, DType dtype, int level) {
  const Bytes bytes = lossless_encode(x, count, dtype, level);
  Bytes y;
  EXPECT_EQ(lossless_decode(bytes.data(), bytes.size(), &y), Status::kOk);
  EXPECT_TRUE(std::equal(y.begin(), y.end(), x.begin()));
  return static_cast<double>(x.size() - 1) / static_cast<double>(bytes.size());
}

TEST(LosslessKernelTest, ShrinksWhatHasStructure) {
  const int64_t n = 1 << 18;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> weights(n), rounded(n), sparse(n);
  for (int64_t i = 0; i < n; ++i) {
    weights[i] = normal(random);
    rounded[i] = to_float(to_bfloat16(weights[i]));
    sparse[i] = random() % 10 < 8 ? 0.0f : weights[i];
  }
  const Bytes bf16 = as_dtype(weights, DType::kBFloat16);
  EXPECT_GE(ratio(bf16, n, DType::kBFloat16, 1), 1.35);
  EXPECT_GE(ratio(bf16, n, DType::kBFloat16, 2), 1.50);
  EXPECT_GE(ratio(as_dtype(weights, DType::kFloat16), n, DType::kFloat16, 2), 1.12);
  const Bytes fp32 = as_dtype(weights, DType::kFloat32);
  EXPECT_GE(ratio(fp32, n, DType::kFloat32, 1), 1.15);
  EXPECT_GE(ratio(fp32, n, DType::kFloat32, 2), 1.19);
  // Half of the planes are zeros.
  EXPECT_GE(ratio(as_dtype(rounded, DType::kFloat32), n, DType::kFloat32, 1), 2 * 1.35);
  EXPECT_GE(ratio(as_dtype(sparse, DType::kFloat32), n, DType::kFloat32, 2), 2.5);
  std::vector<float> constant(n, 1.5f);
  EXPECT_GE(ratio(as_dtype(constant, DType::kFloat32), n, DType::kFloat32, 1), 1500);
  Bytes tokens(n * 8 + 1);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t id = static_cast<int64_t>(random() % 50000) - 1;
    std::memcpy(&tokens[i * 8], &id, 8);
  }
  EXPECT_GE(ratio(tokens, n, DType::kInt64, 1), 3.5);
  Bytes flags(n + 1);
  for (auto& flag : flags) flag = random() % 2;
  EXPECT_GE(ratio(flags, n, DType::kBool, 1), 7.0 / 1.375);
  EXPECT_GE(ratio(flags, n, DType::kBool, 2), 7.0 / 1.375);
}

TEST(LosslessKernelTest, WhatDoesNotShrinkGrowsByLittle) {
  std::mt19937_64 random(4);
  for (DType dtype : {DType::kUInt8, DType::kBFloat16, DType::kFloat32, DType::kInt64}) {
    for (int64_t count : {0, 1, 3, 100, 5000, 300000}) {
      Bytes x(count * dtype_bytes(dtype) + 1);
      for (auto& byte : x) byte = static_cast<uint8_t>(random());
      for (int level : {1, 2}) {
        const size_t size = lossless_encode(x, count, dtype, level).size();
        EXPECT_LE(size, (x.size() - 1) + (x.size() - 1) / 200 + 64)
            << lossless_name(dtype, count, level);
      }
    }
  }
}

// What a sample of the unit does not show: the choice is then wrong, never the values.
TEST(LosslessKernelTest, SurprisesBetweenTheSamplesComeBack) {
  std::mt19937_64 random(5);
  for (DType dtype : {DType::kUInt8, DType::kInt16, DType::kFloat32, DType::kFloat64}) {
    const int64_t count = 2 * kLosslessUnitBytes / dtype_bytes(dtype);
    for (int kind = 0; kind < 4; ++kind) {
      Bytes x(count * dtype_bytes(dtype) + 1);
      for (size_t i = 0; i + 1 < x.size(); ++i) {
        const uint8_t any = static_cast<uint8_t>(random());
        const bool rare = random() % 4096 == 0;
        const bool sampled_side = i % 4096 < 1024;
        x[i] = kind == 0   ? (rare ? any : 7)
               : kind == 1 ? (sampled_side ? 7 : any)
               : kind == 2 ? (sampled_side ? any : 7)
                           : static_cast<uint8_t>(sampled_side ? any & 3 : any);
      }
      for (int level : {1, 2}) {
        SCOPED_TRACE(lossless_name(dtype, count, level));
        for_each_isa([&](Isa) {
          const Bytes bytes = lossless_encode(x, count, dtype, level);
          EXPECT_LE(bytes.size(), x.size() + 64 + 2 * 64);
          Bytes y;
          ASSERT_EQ(lossless_decode(bytes.data(), bytes.size(), &y), Status::kOk);
          ASSERT_TRUE(std::equal(y.begin(), y.end(), x.begin()));
        });
      }
    }
  }
}

TEST(LosslessKernelTest, RefusesEveryTruncationAndTrailingBytes) {
  for (DType dtype : {DType::kBFloat16, DType::kInt32, DType::kUInt8}) {
    for (int level : {1, 2}) {
      const Bytes x = lossless_sample(dtype, 700, 9);
      Bytes bytes = lossless_encode(x, 700, dtype, level);
      Bytes y;
      for (size_t size = 0; size < bytes.size(); ++size) {
        ASSERT_EQ(lossless_decode(bytes.data(), size, &y), Status::kTruncated) << size;
      }
      bytes.push_back(0);
      EXPECT_EQ(lossless_decode(bytes.data(), bytes.size(), &y), Status::kCorrupt);
    }
  }
}

// Memory of exact size everywhere: with AddressSanitizer this shows that no damage leads outside.
TEST(LosslessKernelTest, FlippedBitsNeverLeadOutside) {
  for (DType dtype : {DType::kBFloat16, DType::kFloat32, DType::kUInt8}) {
    for (int level : {1, 2}) {
      const int64_t count = 1500;
      const Bytes good = lossless_encode(lossless_sample(dtype, count, 10), count, dtype, level);
      for_each_isa([&](Isa) {
        for (size_t at = 0; at < good.size(); at += at < 256 ? 1 : 5) {
          for (uint8_t flip : {0x01, 0x10, 0x80, 0xff}) {
            Bytes bad = good;
            bad[at] ^= flip;
            Bytes y;
            const Status status = lossless_decode(bad.data(), bad.size(), &y);
            if (at < 3) {
              EXPECT_EQ(status, Status::kCorrupt);
            } else if (at >= 5 && at < 16) {
              EXPECT_NE(status, Status::kOk);
            }
          }
        }
      });
    }
  }
}

TEST(LosslessKernelTest, TellsNewerVersionsFromDamage) {
  Bytes bytes = lossless_encode(lossless_sample(DType::kFloat32, 40, 1), 40, DType::kFloat32, 1);
  Bytes y;
  bytes[3] = kLosslessMagic[3] + 1;
  EXPECT_EQ(lossless_decode(bytes.data(), bytes.size(), &y), Status::kUnsupported);
  bytes[3] = kLosslessMagic[3];
  bytes[4] = kDTypeCount;
  EXPECT_EQ(lossless_decode(bytes.data(), bytes.size(), &y), Status::kUnsupported);
}

TEST(LosslessPlanTest, RefusesWhatItCannotDo) {
  LosslessPlan plan;
  EXPECT_EQ(make_lossless_plan(-1, DType::kUInt8, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_lossless_plan(1, static_cast<DType>(99), &plan), Status::kInvalidArgument);
  const int64_t most = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(make_lossless_plan(most, DType::kUInt8, &plan), Status::kOverflow);
  EXPECT_EQ(make_lossless_plan(most / 4, DType::kFloat64, &plan), Status::kOverflow);
  ASSERT_EQ(make_lossless_plan(0, DType::kComplex128, &plan), Status::kOk);
  EXPECT_EQ(plan.unit_count, 0);
  ASSERT_EQ(make_lossless_plan(3, DType::kComplex64, &plan), Status::kOk);
  EXPECT_EQ(plan.scalars, 6);
  EXPECT_EQ(plan.scalar_bytes, 4);
}

}  // namespace
}  // namespace qvlmem
