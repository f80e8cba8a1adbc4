// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of lossless give the bytes of the CPU's, and decode what those decode.
#include "kernels/lossless/lossless_cuda.h"

#include <gtest/gtest.h>

#include "cpp_tests/kernels/cuda_fixture.h"
#include "cpp_tests/kernels/lossless_driver.h"

namespace qvlmem {
namespace {

class LosslessCudaTest : public CudaTest {};

// changed: what another stream writes over x meanwhile.
Bytes encode_on_device(const Bytes& x, int64_t count, DType dtype, size_t shift = 0,
                       const Bytes* changed = nullptr) {
  LosslessPlan plan;
  EXPECT_EQ(make_lossless_plan(count, dtype, &plan), Status::kOk);
  DeviceBytes values(x.data(), count * dtype_bytes(dtype), shift * plan.scalar_bytes);
  DeviceBytes workspace(lossless_encode_workspace_bytes(plan));
  DeviceBytes size(8);
  EXPECT_EQ(
      lossless_measure_cuda(plan, values.data(), size.as<int64_t>(), workspace.data(), nullptr),
      cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const int64_t bytes = size.read<int64_t>()[0];
  EXPECT_GE(bytes, plan.header_bytes);
  EXPECT_LE(bytes, plan.bound_bytes);
  if (testing::Test::HasFailure()) return {};
  if (changed != nullptr) values.write(changed->data());
  DeviceBytes out(bytes);
  EXPECT_EQ(lossless_encode_cuda(plan, values.data(), out.as<uint8_t>(), workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return out.read<uint8_t>();
}

// False where refused.
bool decode_on_device(const LosslessPlan& plan, const Bytes& bytes, Bytes* y, size_t shift = 0) {
  DeviceBytes in(bytes.data(), bytes.size(), shift);
  DeviceBytes out(plan.scalars * plan.scalar_bytes, shift * plan.scalar_bytes);
  DeviceBytes workspace(lossless_decode_workspace_bytes(plan));
  DeviceBytes refused(4, 0, 0);
  EXPECT_EQ(lossless_decode_cuda(plan, in.as<uint8_t>(), static_cast<int64_t>(bytes.size()),
                                 out.data(), refused.as<int32_t>(), workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  *y = out.read<uint8_t>();
  return refused.read<int32_t>()[0] == 0;
}

void expect_same(const Bytes& expected, const Bytes& got) {
  ASSERT_EQ(expected.size(), got.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(expected[i], got[i]) << "byte " << i;
}

// Encodes and decodes on both, which must agree.
void expect_agreement(const Bytes& x, int64_t count, DType dtype, size_t shift = 0) {
  SCOPED_TRACE(lossless_name(dtype, count, 1) + " shift " + std::to_string(shift));
  const Bytes expected = lossless_encode(x, count, dtype, 1);
  expect_same(expected, encode_on_device(x, count, dtype, shift));
  if (testing::Test::HasFailure()) return;
  LosslessPlan plan;
  ASSERT_EQ(make_lossless_plan(count, dtype, &plan), Status::kOk);
  Bytes y;
  ASSERT_TRUE(decode_on_device(plan, expected, &y, shift));
  expect_same(Bytes(x.begin(), x.begin() + count * dtype_bytes(dtype)), y);
}

TEST_F(LosslessCudaTest, GivesTheBytesOfTheCpuForEveryDtypeAndAlignment) {
  for (int d = 0; d < kDTypeCount; ++d) {
    const DType dtype = static_cast<DType>(d);
    for (int64_t count : kLosslessCounts) {
      const Bytes x = lossless_sample(dtype, count, 7);
      for (size_t shift : {0, 1}) expect_agreement(x, count, dtype, shift);
      if (HasFailure()) return;
    }
  }
}

TEST_F(LosslessCudaTest, TakesSeveralUnits) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat64, DType::kUInt8}) {
    const int64_t count = 3 * kLosslessUnitBytes / dtype_bytes(dtype) + 2077;
    expect_agreement(lossless_sample(dtype, count, 8), count, dtype);
    if (HasFailure()) return;
  }
}

// More units than one step of the scan takes.
TEST_F(LosslessCudaTest, AddsUpManyUnits) {
  const int64_t count = 300 * kLosslessUnitBytes + 5;
  const Bytes x(count + 1, 3);
  const Bytes expected = lossless_encode(x, count, DType::kUInt8, 1);
  expect_same(expected, encode_on_device(x, count, DType::kUInt8));
}

// The guards around the output say whether what was written stayed inside.
TEST_F(LosslessCudaTest, WritesInsideWhereXChanges) {
  for (DType dtype : {DType::kUInt8, DType::kBFloat16, DType::kFloat32, DType::kFloat64}) {
    const int64_t count = (kLosslessUnitBytes + 9000) / dtype_bytes(dtype);
    Bytes narrow(count * dtype_bytes(dtype) + 1), any(narrow.size());
    std::mt19937 random(4);
    for (size_t i = 0; i < narrow.size(); ++i) {
      any[i] = static_cast<uint8_t>(random());
      narrow[i] = any[i] & 1;
    }
    encode_on_device(narrow, count, dtype, 0, &any);
    encode_on_device(any, count, dtype, 0, &narrow);
  }
}

TEST_F(LosslessCudaTest, TakesPlanesThatAreConstantStoredOrMixed) {
  std::mt19937_64 random(5);
  for (DType dtype : {DType::kUInt8, DType::kInt16, DType::kFloat32, DType::kFloat64}) {
    const int bytes = dtype_bytes(dtype);
    for (int64_t count : {int64_t{97}, int64_t{2500}, kLosslessUnitBytes / bytes + 1000}) {
      for (int kind = 0; kind < 6; ++kind) {
        Bytes x(count * bytes + 1);
        for (size_t i = 0; i + 1 < x.size(); ++i) {
          const uint8_t any = static_cast<uint8_t>(random());
          const size_t scalar = i / bytes, byte = i % bytes;
          const bool sampled = scalar % 1024 < 64;
          x[i] = kind == 0   ? 7                    // all constant
                 : kind == 1 ? any                  // stored
                 : kind == 2 ? (sampled ? 7 : any)  // worth packing only in the sample
                 : kind == 3 ? (sampled ? any : 7)  // and only elsewhere
                 : kind == 4 ? static_cast<uint8_t>(byte % 2 ? any & 3 : 0)
                             : static_cast<uint8_t>(scalar / 40);  // constant blocks, not planes
        }
        SCOPED_TRACE("kind " + std::to_string(kind));
        expect_agreement(x, count, dtype);
        if (HasFailure()) return;
      }
    }
  }
}

// A tensor whose second unit alone is worth coding by entropy.
TEST_F(LosslessCudaTest, LeavesPlanesCodedByEntropyToOthersAndMarksTheirValues) {
  const int64_t in_unit = kLosslessUnitBytes / 4, count = 2 * in_unit;
  Bytes x = lossless_sample(DType::kFloat32, count, 3);
  std::fill(x.begin(), x.begin() + kLosslessUnitBytes, uint8_t{7});
  LosslessPlan plan;
  ASSERT_EQ(make_lossless_plan(count, DType::kFloat32, &plan), Status::kOk);
  Bytes y;
  EXPECT_FALSE(decode_on_device(plan, lossless_encode(x, count, DType::kFloat32, 2), &y));
  std::fill(x.begin() + kLosslessUnitBytes, x.end(), uint8_t{0xff});
  x.pop_back();
  expect_same(x, y);
}

TEST_F(LosslessCudaTest, RefusesAnotherPlan) {
  const Bytes bytes =
      lossless_encode(lossless_sample(DType::kBFloat16, 300, 3), 300, DType::kBFloat16, 1);
  Bytes y;
  for (auto [count, dtype] : {std::pair<int64_t, DType>{301, DType::kBFloat16},
                              {300, DType::kFloat16},
                              {300, DType::kFloat64},
                              {0, DType::kBFloat16},
                              {1 << 20, DType::kBFloat16}}) {
    LosslessPlan plan;
    ASSERT_EQ(make_lossless_plan(count, dtype, &plan), Status::kOk);
    EXPECT_FALSE(decode_on_device(plan, bytes, &y)) << lossless_name(dtype, count, 1);
    expect_same(Bytes(y.size(), 0xff), y);
  }
}

// Damage of every kind: refused exactly where the CPU refuses, else with the same values.
void expect_same_answer(const LosslessPlan& plan, const Bytes& bytes, size_t shift) {
  Bytes expected, got;
  const bool fine = lossless_decode(bytes.data(), bytes.size(), &expected) == Status::kOk &&
                    expected.size() == static_cast<size_t>(plan.scalars * plan.scalar_bytes) &&
                    bytes[4] == static_cast<uint8_t>(plan.dtype);
  ASSERT_EQ(decode_on_device(plan, bytes, &got, shift), fine);
  if (fine) expect_same(expected, got);
}

TEST_F(LosslessCudaTest, AnswersDamageAsTheCpuDoes) {
  for (DType dtype : {DType::kBFloat16, DType::kFloat32, DType::kUInt8, DType::kInt64}) {
    for (int64_t count : {int64_t{1501}, kLosslessUnitBytes / dtype_bytes(dtype) + 45}) {
      LosslessPlan plan;
      ASSERT_EQ(make_lossless_plan(count, dtype, &plan), Status::kOk);
      const Bytes good = lossless_encode(lossless_sample(dtype, count, 10), count, dtype, 1);
      const size_t step = count < 2000 ? 5 : 20011;
      for (size_t at = 0; at < good.size(); at += at < 240 ? 1 : step) {
        for (uint8_t flip : {0x01, 0x10, 0x80, 0xff}) {
          if (at >= 240 && flip == 0x10) continue;
          SCOPED_TRACE(lossless_name(dtype, count, 1) + " byte " + std::to_string(at) + " flip " +
                       std::to_string(flip));
          Bytes bad = good;
          bad[at] ^= flip;
          expect_same_answer(plan, bad, at % 16);
          if (HasFailure()) return;
        }
      }
      for (size_t size = 0; size < good.size(); size += size < 100 ? 1 : step) {
        expect_same_answer(plan, Bytes(good.begin(), good.begin() + size), size % 3);
        if (HasFailure()) return;
      }
      Bytes longer = good;
      longer.push_back(0);
      expect_same_answer(plan, longer, 0);
    }
  }
}

}  // namespace
}  // namespace qvlmem
