// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/lossless/lossless.h"

namespace qvlmem {
namespace {

using Bytes = std::vector<uint8_t>;

// Every unit into memory of exactly its bound, in reverse, then put in line: shows that units are
// independent and that none writes beyond what it is given.
Bytes encode(const Bytes& x, int64_t count, DType dtype, int level, bool stream = false) {
  LosslessPlan plan;
  EXPECT_EQ(make_lossless_plan(count, dtype, &plan), Status::kOk);
  std::vector<Bytes> units(plan.unit_count);
  for (int64_t u = plan.unit_count; u-- > 0;) {
    const std::unique_ptr<uint8_t[]> slot(new uint8_t[plan.unit_bound_bytes]);
    const int64_t size = lossless_encode_unit_cpu(plan, x.data(), u, level, stream, slot.get());
    EXPECT_LE(size, plan.unit_bound_bytes);
    units[u].assign(slot.get(), slot.get() + size);
  }
  Bytes bytes(plan.bound_bytes, 0xee);
  lossless_write_header(plan, bytes.data());
  int64_t end = plan.header_bytes;
  for (int64_t u = 0; u < plan.unit_count; ++u) {
    const int64_t begin = lossless_unit_begin(end);
    std::copy(units[u].begin(), units[u].end(), bytes.begin() + begin);
    end = begin + static_cast<int64_t>(units[u].size());
    lossless_write_unit_end(plan, u, end, bytes.data());
  }
  EXPECT_LE(end, plan.bound_bytes);
  bytes.resize(end);
  return bytes;
}

// kOk and exactly the tensor's bytes in *y, or the error. Memory of exact size on both sides.
Status decode(const uint8_t* bytes, size_t size, Bytes* y) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[size]);
  std::copy(bytes, bytes + size, copy.get());
  LosslessPlan plan;
  Status status = lossless_read_plan(copy.get(), static_cast<int64_t>(size), &plan);
  if (status != Status::kOk) return status;
  const int64_t total = plan.scalars * plan.scalar_bytes;
  if (total > int64_t{1} << 26) return Status::kOverflow;  // more than any of these tests encodes
  y->assign(total, 0xcc);
  for (int64_t u = plan.unit_count; u-- > 0;) {
    const Status one = lossless_decode_cpu(plan, copy.get(), u, u + 1, y->data());
    if (one != Status::kOk) status = one;
  }
  return status;
}

std::string name_of(DType dtype, int64_t count, int level) {
  return "dtype " + std::to_string(int(dtype)) + " count " + std::to_string(count) + " level " +
         std::to_string(level);
}

// Values as tensors have them: bell-shaped floats with every special value, integers near 0.
Bytes sample(DType dtype, int64_t count, uint32_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0.0, 0.02);
  Bytes x(static_cast<size_t>(count) * dtype_bytes(dtype) + 1);
  const auto fill = [&](auto zero, auto make) {
    for (size_t i = 0; i + sizeof(zero) < x.size(); i += sizeof(zero)) {
      const decltype(zero) value = make();
      std::memcpy(&x[i], &value, sizeof(value));
    }
  };
  const float special[] = {0.0f, -0.0f, 1e-41f, INFINITY, -INFINITY, NAN, kFloat32Max};
  const auto value = [&]() {
    const uint64_t pick = random() % 1024;  // rare, or no block of floats would be worth packing
    return pick < 7 ? special[pick] : static_cast<float>(normal(random));
  };
  switch (dtype) {
    case DType::kFloat32:
    case DType::kComplex64:
      fill(0.0f, value);
      break;
    case DType::kFloat64:
    case DType::kComplex128:
      fill(0.0, [&] { return static_cast<double>(value()) * 1.1; });
      break;
    case DType::kFloat16:
    case DType::kComplex32:
      fill(uint16_t{}, [&] { return to_half(value()).bits; });
      break;
    case DType::kBFloat16:
      fill(uint16_t{}, [&] { return to_bfloat16(value()).bits; });
      break;
    case DType::kBool:
      fill(uint8_t{}, [&] { return static_cast<uint8_t>(random() % 8 == 0); });
      break;
    default: {
      const int bytes = dtype_bytes(dtype);
      for (size_t i = 0; i + bytes < x.size(); i += bytes) {
        const int64_t v = static_cast<int64_t>(std::llround(normal(random) * 2000));
        std::memcpy(&x[i], &v, bytes);
      }
    }
  }
  return x;
}

constexpr int64_t kCounts[] = {0, 1, 2, 5, 31, 32, 33, 63, 65, 72, 129, 1023, 4304, 16385};

TEST(LosslessKernelTest, EveryDtypeComesBackBitByBitAndEncodesAlikeOnEveryIsa) {
  for (int d = 0; d < kDTypeCount; ++d) {
    const DType dtype = static_cast<DType>(d);
    for (int64_t count : kCounts) {
      const Bytes x = sample(dtype, count, 7);
      for (int level : {1, 2}) {
        SCOPED_TRACE(name_of(dtype, count, level));
        Bytes reference;
        for_each_isa([&](Isa isa) {
          const Bytes bytes = encode(x, count, dtype, level);
          if (isa == Isa::kPortable) reference = bytes;
          ASSERT_EQ(bytes, reference);
          ASSERT_EQ(bytes, encode(x, count, dtype, level, true));
          Bytes y;
          ASSERT_EQ(decode(bytes.data(), bytes.size(), &y), Status::kOk);
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
    const Bytes x = sample(dtype, count, 8);
    for (int level : {1, 2}) {
      SCOPED_TRACE(name_of(dtype, count, level));
      Bytes reference;
      for_each_isa([&](Isa isa) {
        const Bytes bytes = encode(x, count, dtype, level);
        if (isa == Isa::kPortable) reference = bytes;
        ASSERT_EQ(bytes, reference);
        Bytes y;
        ASSERT_EQ(decode(bytes.data(), bytes.size(), &y), Status::kOk);
        ASSERT_TRUE(std::equal(y.begin(), y.end(), x.begin()));
      });
    }
  }
}

double ratio(const Bytes& x, int64_t count, DType dtype, int level) {
  const Bytes bytes = encode(x, count, dtype, level);
  Bytes y;
  EXPECT_EQ(decode(bytes.data(), bytes.size(), &y), Status::kOk);
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
        const size_t size = encode(x, count, dtype, level).size();
        EXPECT_LE(size, (x.size() - 1) + (x.size() - 1) / 200 + 64) << name_of(dtype, count, level);
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
        SCOPED_TRACE(name_of(dtype, count, level));
        for_each_isa([&](Isa) {
          const Bytes bytes = encode(x, count, dtype, level);
          EXPECT_LE(bytes.size(), x.size() + 64 + 2 * 64);
          Bytes y;
          ASSERT_EQ(decode(bytes.data(), bytes.size(), &y), Status::kOk);
          ASSERT_TRUE(std::equal(y.begin(), y.end(), x.begin()));
        });
      }
    }
  }
}

TEST(LosslessKernelTest, RefusesEveryTruncationAndTrailingBytes) {
  for (DType dtype : {DType::kBFloat16, DType::kInt32, DType::kUInt8}) {
    for (int level : {1, 2}) {
      const Bytes x = sample(dtype, 700, 9);
      Bytes bytes = encode(x, 700, dtype, level);
      Bytes y;
      for (size_t size = 0; size < bytes.size(); ++size) {
        ASSERT_EQ(decode(bytes.data(), size, &y), Status::kTruncated) << size;
      }
      bytes.push_back(0);
      EXPECT_EQ(decode(bytes.data(), bytes.size(), &y), Status::kCorrupt);
    }
  }
}

// Memory of exact size everywhere: with AddressSanitizer this shows that no damage leads outside.
TEST(LosslessKernelTest, FlippedBitsNeverLeadOutside) {
  for (DType dtype : {DType::kBFloat16, DType::kFloat32, DType::kUInt8}) {
    for (int level : {1, 2}) {
      const int64_t count = 1500;
      const Bytes good = encode(sample(dtype, count, 10), count, dtype, level);
      for_each_isa([&](Isa) {
        for (size_t at = 0; at < good.size(); at += at < 256 ? 1 : 5) {
          for (uint8_t flip : {0x01, 0x10, 0x80, 0xff}) {
            Bytes bad = good;
            bad[at] ^= flip;
            Bytes y;
            const Status status = decode(bad.data(), bad.size(), &y);
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
  Bytes bytes = encode(sample(DType::kFloat32, 40, 1), 40, DType::kFloat32, 1);
  Bytes y;
  bytes[3] = kLosslessMagic[3] + 1;
  EXPECT_EQ(decode(bytes.data(), bytes.size(), &y), Status::kUnsupported);
  bytes[3] = kLosslessMagic[3];
  bytes[4] = kDTypeCount;
  EXPECT_EQ(decode(bytes.data(), bytes.size(), &y), Status::kUnsupported);
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
