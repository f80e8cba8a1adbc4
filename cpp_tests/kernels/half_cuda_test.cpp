// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of the float16 codec give the scale and the bytes of the CPU's.
#include "kernels/half/half_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "cpp_tests/kernels/cuda_fixture.h"
#include "cpp_tests/kernels/half_driver.h"
#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/half/half_math.h"

namespace qvlmem {
namespace {

class HalfCudaTest : public CudaTest {};

constexpr DType kAllDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16,
                                DType::kFloat64};

// shift: elements that x and half begin past an aligned address.
EncodedHalves encode_on_device(const HalfPlan& plan, const void* x, size_t shift = 0) {
  const size_t size = dtype_bytes(plan.dtype);
  DeviceBytes values(x, plan.numel * size, shift * size), half(plan.numel * 2, shift * 2);
  const DType scale_dtype = half_scale_dtype(plan.dtype);
  DeviceBytes scale(dtype_bytes(scale_dtype)), workspace(kHalfWorkspaceBytes);
  EXPECT_EQ(
      half_encode_cuda(plan, values.data(), half.data(), scale.data(), workspace.data(), nullptr),
      cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EncodedHalves e;
  e.half = half.read<uint16_t>();
  e.scale = scale_dtype == DType::kFloat64 ? scale.read<double>()[0] : scale.read<float>()[0];
  return e;
}

std::vector<uint8_t> decode_on_device(const std::vector<uint16_t>& half, double scale,
                                      DType scale_dtype, int64_t numel, DType dtype,
                                      size_t shift = 0) {
  const size_t size = dtype_bytes(dtype);
  const float narrow = static_cast<float>(scale);
  const void* const factor =
      scale_dtype == DType::kFloat64 ? static_cast<const void*>(&scale) : &narrow;
  DeviceBytes values(half.data(), numel * 2, shift * 2), y(numel * size, shift * size);
  DeviceBytes one(factor, dtype_bytes(scale_dtype));
  EXPECT_EQ(half_decode_cuda(half_plan(numel, dtype), values.data(), one.data(), scale_dtype,
                             y.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return y.read<uint8_t>();
}

void expect_same_bytes(const std::vector<uint8_t>& cpu, const std::vector<uint8_t>& cuda,
                       size_t size) {
  for (size_t i = 0; i < size; ++i) ASSERT_EQ(cpu[i], cuda[i]) << "byte " << i;
}

// Returns what the CPU gives.
EncodedHalves expect_as_on_cpu(const std::vector<uint8_t>& x, int64_t n, DType dtype,
                               size_t shift = 0) {
  const HalfPlan plan = half_plan(n, dtype);
  EncodedHalves expected = encode_halves(plan, x.data());
  const EncodedHalves got = encode_on_device(plan, x.data(), shift);
  EXPECT_EQ(got.scale, expected.scale);
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_EQ(got.half[i], expected.half[i]) << "element " << i;
    if (testing::Test::HasFailure()) break;
  }
  return expected;
}

TEST_F(HalfCudaTest, GivesTheBytesOfTheCpu) {
  for (DType dtype : kAllDTypes) {
    for (int64_t n : {0, 1, 5, 31, 72, 129, 4304, 16384, 16385, 40000, 70001}) {
      for (double factor : {1.0, 1e-30, 3e30}) {
        for (size_t shift : {0, 1}) {
          SCOPED_TRACE(std::to_string(n) + " dtype " + std::to_string(int(dtype)) + " shift " +
                       std::to_string(shift));
          std::vector<double> values = half_sample(n, factor, 7);
          if (n > 20) values[17] = -0.0, values[3] = 1e-40, values[11] *= 20;
          const EncodedHalves e = expect_as_on_cpu(bytes_of(values, dtype), n, dtype, shift);
          for (DType out : kAllDTypes) {
            const auto expected = decode_halves(e.half, e.scale, n, out);
            for (DType scale : {half_scale_dtype(dtype), DType::kFloat64}) {
              const auto y = decode_on_device(e.half, e.scale, scale, n, out, shift);
              expect_same_bytes(expected, y, y.size());
            }
          }
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_F(HalfCudaTest, EncodesAgainWhereTheSampleMisleads) {
  const int64_t n = 300001;
  for (DType dtype : kScaledDTypes) {
    int passes = 0;
    for (int64_t at : {int64_t{8192}, n / 3, n / 2 + 7, n - 1})
      for (double outlier : {-4e7, 1e9, 15.99, 5.0}) {
        std::vector<double> values = half_sample(n, 0.2, 3);
        values[at] = outlier;
        values[n / 3 + 1] = NAN;
        passes += expect_as_on_cpu(bytes_of(values, dtype), n, dtype).passes;
        std::fill(values.begin(), values.end(), 0.0);
        values[at] = outlier;
        passes += expect_as_on_cpu(bytes_of(values, dtype), n, dtype).passes;
        if (HasFailure()) return;
      }
    EXPECT_GT(passes, 40);  // of 32 tensors, most twice and some once
    EXPECT_LT(passes, 64);
  }
}

// More tiles than blocks that encode again.
TEST_F(HalfCudaTest, EncodesALongTensorAgain) {
  const int64_t n = 1024 * 4096 + 4099;
  std::vector<double> values(n, 1.5);
  for (int64_t i = 0; i < n; ++i) values[i] += static_cast<double>(i % 4001) / 4001;
  values[n - 3] = 1e9;
  EXPECT_EQ(expect_as_on_cpu(bytes_of(values, DType::kFloat32), n, DType::kFloat32).passes, 2);
}

TEST_F(HalfCudaTest, SpecialValuesStay) {
  for (DType dtype : kScaledDTypes)
    for (const auto& small : half_specials(dtype))
      for (int repeat : {1, 19}) {
        std::vector<double> values;
        for (int k = 0; k < repeat; ++k) values.insert(values.end(), small.begin(), small.end());
        const int64_t n = static_cast<int64_t>(values.size());
        const EncodedHalves e = expect_as_on_cpu(bytes_of(values, dtype), n, dtype);
        const auto y = decode_on_device(e.half, e.scale, half_scale_dtype(dtype), n, dtype);
        expect_same_bytes(decode_halves(e.half, e.scale, n, dtype), y, y.size());
      }
}

// Around the thresholds of the scale, and doubles that their upper half does not tell.
TEST_F(HalfCudaTest, ChoosesTheScaleByTheWholeMagnitude) {
  for (DType dtype : {DType::kFloat32, DType::kFloat64})
    for (double sampled : {0.0, 1.0, 0x1p-1060})
      for (double scaled : {1023.0, 1024.0, 65519.0, 65520.0, 65535.0, 0x1p-1074, 0x1p-1043})
        for (int nudge : {-1, 0, 1}) {
          const int64_t n = 20000;
          double whole = scaled < 1.0 ? scaled : scaled * 0x1p-12;
          if (nudge != 0 && dtype == DType::kFloat64) whole = std::nextafter(whole, nudge * 1e9);
          if (nudge != 0 && dtype == DType::kFloat32) {
            whole = std::nextafter(static_cast<float>(whole), static_cast<float>(nudge));
          }
          std::vector<double> values(n, sampled);
          values[n - 1] = whole;
          SCOPED_TRACE(std::to_string(scaled) + " nudge " + std::to_string(nudge));
          expect_as_on_cpu(bytes_of(values, dtype), n, dtype);
          if (HasFailure()) return;
        }
}

TEST_F(HalfCudaTest, ConvertsEveryHalfAndEveryBFloat16) {
  std::vector<uint16_t> all(0x10000);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  const int64_t n = static_cast<int64_t>(all.size());
  for (DType dtype : kAllDTypes)
    for (DType scale_dtype : {DType::kFloat32, DType::kFloat64})
      for (double scale : {1.0, 0x1p-126, 0x1p-20, 0x1p117, 0x1p1013, 0x1p-1022, 0.3, 1e40}) {
        if (scale_dtype == DType::kFloat32 && double{static_cast<float>(scale)} != scale) continue;
        SCOPED_TRACE(std::to_string(int(dtype)) + " scale " + std::to_string(scale));
        const auto y = decode_on_device(all, scale, scale_dtype, n, dtype);
        expect_same_bytes(decode_halves(all, scale, n, dtype), y, y.size());
        if (HasFailure()) return;
      }
  std::vector<uint8_t> bytes(n * 2 + 1);
  std::memcpy(bytes.data(), all.data(), n * 2);
  expect_as_on_cpu(bytes, n, DType::kFloat16);
  // Magnitudes below 2^e are encoded with scale 2^(e - 13) or smaller: all of a half's range.
  for (int field = 1; field < 255; field += 12) {
    std::vector<uint16_t> some;
    for (uint16_t bits : all) {
      const int exponent = bits >> 7 & 0xff;
      if (exponent < field || exponent == 0xff) some.push_back(bits);
    }
    bytes.resize(some.size() * 2 + 1);
    std::memcpy(bytes.data(), some.data(), some.size() * 2);
    expect_as_on_cpu(bytes, static_cast<int64_t>(some.size()), DType::kBFloat16);
    if (HasFailure()) return;
  }
}

// Scale 1 all through, where every float below 8192 is rounded to a half; and every NaN's payload.
TEST_F(HalfCudaTest, RoundsFloatsAsTheCpuDoes) {
  const int64_t n = 1 << 21;
  std::vector<float> values(n);
  std::vector<double> doubles(n);
  uint32_t bits = 12345;
  for (int64_t i = 0; i < n; ++i) {
    bits = bits * 1664525u + 1013904223u;
    uint32_t pattern = bits;
    const uint32_t exponent = pattern >> 23 & 0xffu;
    // Into the range where halves are, ties and their neighbours among them.
    if (exponent < 255) pattern = (pattern & 0x807fffffu) | (100 + exponent % 40) << 23;
    if (i % 3 == 0) pattern = (pattern & 0xffffe000u) | 0x1000u;
    if (i % 6 == 0) pattern += (i % 12 == 0) ? 1 : -1;
    values[i] = bits_to_float(pattern);
    doubles[i] = values[i];
    if (i % 5 == 0) doubles[i] = std::nextafter(doubles[i], i % 2 == 0 ? 0.0 : 1e9);
  }
  values[0] = 8191.0f;
  doubles[0] = 8191.0;
  std::vector<uint8_t> bytes(n * 8 + 1);
  std::memcpy(bytes.data(), values.data(), n * 4);
  EXPECT_EQ(expect_as_on_cpu(bytes, n, DType::kFloat32).scale, 1.0);
  std::memcpy(bytes.data(), doubles.data(), n * 8);
  EXPECT_EQ(expect_as_on_cpu(bytes, n, DType::kFloat64).scale, 1.0);
}

}  // namespace
}  // namespace qvlmem
