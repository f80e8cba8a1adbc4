// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of quantize give the bytes of the CPU's.
#include "kernels/quantize/quantize_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cpp_tests/kernels/cuda_fixture.h"
#include "cpp_tests/kernels/quantize_driver.h"
#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {
namespace {

class QuantizeCudaTest : public CudaTest {};

struct OnDevice {
  QuantizedParts parts;
  int32_t non_finite;
};

OnDevice quantize_on_device(const QuantizePlan& plan, const void* x, DType dtype,
                            const uint64_t* seed = nullptr, size_t shift = 0) {
  DeviceBytes values(x, plan.rows * plan.cols * dtype_bytes(dtype), shift * dtype_bytes(dtype));
  DeviceBytes q(plan.rows * plan.row_bytes, shift);
  DeviceBytes scale(plan.group_count * 4), zero(plan.symmetric ? 0 : plan.group_count * 4);
  DeviceBytes workspace(quantize_workspace_bytes(plan, seed != nullptr));
  DeviceBytes flag(4, 0, 0);
  EXPECT_EQ(quantize_cuda(plan, values.data(), dtype, seed, q.data(), scale.as<float>(),
                          zero.as<int32_t>(), flag.as<int32_t>(), workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {{q.read<uint8_t>(), scale.read<float>(), zero.read<int32_t>()}, flag.read<int32_t>()[0]};
}

std::vector<uint8_t> dequantize_on_device(const QuantizePlan& plan, const QuantizedParts& parts,
                                          DType dtype, size_t shift = 0) {
  DeviceBytes q(parts.q.data(), parts.q.size(), shift);
  DeviceBytes scale(parts.scale.data(), parts.scale.size() * 4);
  DeviceBytes zero(parts.zero.data(), parts.zero.size() * 4);
  DeviceBytes y(plan.rows * plan.cols * dtype_bytes(dtype), shift * dtype_bytes(dtype));
  EXPECT_EQ(
      dequantize_cuda(plan, q.data(), scale.as<float>(),
                      plan.symmetric ? nullptr : zero.as<int32_t>(), y.data(), dtype, nullptr),
      cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return y.read<uint8_t>();
}

std::vector<uint8_t> dequantize_on_host(const QuantizePlan& plan, const QuantizedParts& parts,
                                        DType dtype) {
  std::vector<uint8_t> y(plan.rows * plan.cols * dtype_bytes(dtype));
  dequantize_cpu(plan, parts.q.data(), parts.scale.data(),
                 plan.symmetric ? nullptr : parts.zero.data(), 0, plan.unit_count, y.data(), dtype);
  return y;
}

void expect_same(const QuantizedParts& cpu, const QuantizedParts& cuda) {
  EXPECT_EQ(cpu.scale, cuda.scale);
  EXPECT_EQ(cpu.zero, cuda.zero);
  ASSERT_EQ(cpu.q.size(), cuda.q.size());
  for (size_t i = 0; i < cpu.q.size(); ++i) {
    ASSERT_EQ(cpu.q[i], cuda.q[i]) << "byte " << i << " of q";
  }
}

TEST_F(QuantizeCudaTest, GivesTheBytesOfTheCpu) {
  for (const QuantizeCase& c : quantize_cases()) {
    SCOPED_TRACE(name_of(c));
    QuantizePlan plan;
    ASSERT_EQ(make_quantize_plan(c.rows, c.cols, c.bits, c.symmetric, c.group, &plan), Status::kOk);
    const auto x = as_dtype(quantize_sample(c.rows * c.cols, 5), c.dtype);
    const QuantizedParts expected = quantize_on_cpu(plan, x.data(), c.dtype);
    const OnDevice got = quantize_on_device(plan, x.data(), c.dtype);
    EXPECT_EQ(got.non_finite, 0);
    expect_same(expected, got.parts);
    EXPECT_EQ(dequantize_on_device(plan, expected, c.dtype),
              dequantize_on_host(plan, expected, c.dtype));
    if (HasFailure()) return;
  }
}

// Each width of a team, full and cut short; rows that begin anywhere.
TEST_F(QuantizeCudaTest, TakesGroupsOfAnyLengthAndAnyAlignment) {
  const int64_t groups[] = {1,   2,   8,   31,  32,   33,   64,   65,   96,   127,
                            128, 129, 256, 512, 1022, 1024, 1025, 4304, 8192, 8194};
  for (int64_t group : groups)
    for (int64_t cols : {group, 2 * group, 2 * group + 5, 3 * group - 1})
      for (int bits : {8, 4})
        for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
          SCOPED_TRACE(name_of({3, cols, bits, false, group, dtype}));
          QuantizePlan plan;
          ASSERT_EQ(make_quantize_plan(3, cols, bits, false, group, &plan), Status::kOk);
          const auto x = as_dtype(quantize_sample(3 * cols, 7), dtype);
          const QuantizedParts expected = quantize_on_cpu(plan, x.data(), dtype);
          for (size_t shift : {0, 1}) {
            expect_same(expected, quantize_on_device(plan, x.data(), dtype, nullptr, shift).parts);
            EXPECT_EQ(dequantize_on_device(plan, expected, dtype, shift),
                      dequantize_on_host(plan, expected, dtype));
            if (HasFailure()) return;
          }
        }
}

TEST_F(QuantizeCudaTest, RoundsStochasticallyByTheSamePhilox) {
  const uint64_t seed = 0x123456789abcdefull;
  for (const QuantizeCase& c : quantize_cases()) {
    if (c.rows * c.cols > 20000) continue;
    SCOPED_TRACE(name_of(c));
    QuantizePlan plan;
    ASSERT_EQ(make_quantize_plan(c.rows, c.cols, c.bits, c.symmetric, c.group, &plan), Status::kOk);
    const auto x = as_dtype(quantize_sample(c.rows * c.cols, 9), c.dtype);
    expect_same(quantize_on_cpu(plan, x.data(), c.dtype, &seed),
                quantize_on_device(plan, x.data(), c.dtype, &seed).parts);
    if (HasFailure()) return;
  }
}

TEST_F(QuantizeCudaTest, TakesExtremesAsTheCpuDoes) {
  const float max = std::numeric_limits<float>::max(), denormal = 1e-45f;
  const std::vector<std::vector<float>> rows = {{0, 0, 0, 0},
                                                {-0.0f, -0.0f, 0, -0.0f},
                                                {max, -max, 1, -1},
                                                {max, max, max, 0},
                                                {denormal, 0, -denormal, 0},
                                                {1e-38f, -1e-38f, 3e-39f, 0},
                                                {-5, -4, -3, -2},
                                                {7, 6, 5, 4},
                                                {0.5f, 1.5f, 2.5f, 127.0f},
                                                {-127, 126.5f, 0.5f, -0.5f}};
  std::vector<float> values;
  for (const auto& row : rows) values.insert(values.end(), row.begin(), row.end());
  for (int bits : {8, 4})
    for (bool symmetric : {true, false})
      for (int64_t group : {0, -1, 2}) {
        QuantizePlan plan;
        ASSERT_EQ(make_quantize_plan(rows.size(), 4, bits, symmetric, group, &plan), Status::kOk);
        SCOPED_TRACE(name_of({10, 4, bits, symmetric, group, DType::kFloat32}));
        const auto x = as_dtype(values, DType::kFloat32);
        const QuantizedParts expected = quantize_on_cpu(plan, x.data(), DType::kFloat32);
        expect_same(expected, quantize_on_device(plan, x.data(), DType::kFloat32).parts);
        for (DType out : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
          EXPECT_EQ(dequantize_on_device(plan, expected, out),
                    dequantize_on_host(plan, expected, out));
        }
      }
}

TEST_F(QuantizeCudaTest, FlagsWhatIsNotFiniteWhereverItStands) {
  const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
  for (int64_t group : {0, -1, 7, 64})
    for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16})
      for (bool symmetric : {true, false})
        for (int64_t at : {0, 63, 64, 170, 209}) {
          QuantizePlan plan;
          ASSERT_EQ(make_quantize_plan(3, 70, 8, symmetric, group, &plan), Status::kOk);
          std::vector<float> values = quantize_sample(210, 3);
          values[11] = 1.0f;  // 60000 becomes an infinity in no dtype, but stay away from it
          values[at] = bad[at % 4];
          const OnDevice got = quantize_on_device(plan, as_dtype(values, dtype).data(), dtype);
          EXPECT_EQ(got.non_finite, 1);
          const int64_t hit = group_of(plan, plan.per_tensor ? 0 : at / 70, at % 70);
          for (int64_t g = 0; g < plan.group_count; ++g) {
            EXPECT_EQ(std::isnan(got.parts.scale[g]), g == hit) << "group " << g;
          }
        }
}

TEST_F(QuantizeCudaTest, FindsTheOneValueThatIsNotFinite) {
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16})
    for (size_t shift : {0, 1})
      for (int64_t at : {-1, 0, 1000, 2050}) {
        std::vector<float> values(2051, 1.0f);
        if (at >= 0) values[at] = -INFINITY;
        const auto bytes = as_dtype(values, dtype);
        DeviceBytes x(bytes.data(), 2051 * dtype_bytes(dtype), shift * dtype_bytes(dtype));
        DeviceBytes flag(4, 0, 0);
        ASSERT_EQ(find_non_finite_cuda(x.data(), dtype, 2051, flag.as<int32_t>(), nullptr),
                  cudaSuccess);
        EXPECT_EQ(flag.read<int32_t>()[0], at >= 0 ? 1 : 0);
      }
}

TEST_F(QuantizeCudaTest, WritesTheScalesOfGroupsWithoutValues) {
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{3, 0}, {0, 5}, {0, 0}})
    for (int64_t group : {0, -1, 4})
      for (bool symmetric : {true, false}) {
        QuantizePlan plan;
        ASSERT_EQ(make_quantize_plan(rows, cols, 8, symmetric, group, &plan), Status::kOk);
        const float nothing = 0;
        const OnDevice got = quantize_on_device(plan, &nothing, DType::kFloat32);
        EXPECT_EQ(got.parts.scale, std::vector<float>(plan.group_count, 1.0f));
        EXPECT_EQ(got.parts.zero, std::vector<int32_t>(symmetric ? 0 : plan.group_count, -128));
        EXPECT_TRUE(dequantize_on_device(plan, got.parts, DType::kFloat32).empty());
      }
}

// Zero points from outside may be anything: the difference wraps, as on the CPU.
TEST_F(QuantizeCudaTest, DecodesAnyPartsAsTheCpuDoes) {
  QuantizePlan plan;
  ASSERT_EQ(make_quantize_plan(4, 33, 8, false, 16, &plan), Status::kOk);
  QuantizedParts parts;
  for (int64_t i = 0; i < 4 * 33; ++i) parts.q.push_back(static_cast<uint8_t>(i * 37));
  const float scales[] = {1.0f, 1e38f, -2.5f, 0.0f, 1e-45f, 3e33f};
  const int32_t zeros[] = {0, INT32_MAX, INT32_MIN, -128, 7};
  for (int64_t g = 0; g < plan.group_count; ++g) {
    parts.scale.push_back(scales[g % 6]);
    parts.zero.push_back(zeros[g % 5]);
  }
  for (DType out : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    EXPECT_EQ(dequantize_on_device(plan, parts, out), dequantize_on_host(plan, parts, out));
  }
}

}  // namespace
}  // namespace qvlmem
