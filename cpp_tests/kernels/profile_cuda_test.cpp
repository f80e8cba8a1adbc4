// SPDX-License-Identifier: Apache-2.0
// CUDA gives the profile of the CPU, bit by bit.
#include "kernels/profile/profile_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "cpp_tests/kernels/cuda_fixture.h"
#include "cpp_tests/kernels/profile_driver.h"
#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {
namespace {

class ProfileCudaTest : public CudaTest {};

void expect_cpu_fields(const std::vector<float>& floats, int64_t rows, int64_t cols, DType dtype) {
  SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols) + " dtype " +
               std::to_string(int(dtype)));
  const auto x = as_dtype(floats, dtype);
  const ProfilePlan plan = profile_plan(rows, cols, dtype);
  DeviceBytes values(x.data(), x.size(), dtype_bytes(dtype));
  DeviceBytes fields(kProfileFields * sizeof(double));
  DeviceBytes workspace(profile_workspace_bytes(plan));
  ASSERT_EQ(profile_cuda(plan, values.data(), fields.as<double>(), workspace.data(), nullptr),
            cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const auto got = fields.read<double>();
  const ProfileFields expected = profile_of(x, rows, cols, dtype);
  for (int k = 0; k < kProfileFields; ++k) {
    EXPECT_EQ(std::memcmp(&got[k], &expected[k], sizeof(double)), 0)
        << "field " << k << ": " << got[k] << ", CPU " << expected[k];
  }
}

const DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

TEST_F(ProfileCudaTest, GivesTheNumbersOfTheCpu) {
  for (const auto& [rows, cols] : kProfileShapes) {
    for (DType dtype : kDTypes) {
      expect_cpu_fields(profile_values(rows * cols, 5), rows, cols, dtype);
    }
  }
}

TEST_F(ProfileCudaTest, OfTheLargestSampleToo) {
  expect_cpu_fields(profile_values(32768, 7), 256, 128, DType::kFloat16);
  expect_cpu_fields(profile_values(32768, 7), 32768, 1, DType::kBFloat16);
}

TEST_F(ProfileCudaTest, WhereFieldsAreUndefined) {
  for (DType dtype : kDTypes) {
    for (float value : {0.0f, -0.0f, 3.0f, float(NAN), float(INFINITY), -float(INFINITY)}) {
      expect_cpu_fields(std::vector<float>(40, value), 5, 8, dtype);
      expect_cpu_fields(std::vector<float>(70000, value), 7, 10000, dtype);
    }
  }
}

// Reflections of a block with a diagonal Gram matrix, with values that are far apart and with the
// largest ones.
TEST_F(ProfileCudaTest, SpectraOfSpecialBlocks) {
  std::vector<float> diagonal(32 * 32, 0.0f), graded(32 * 32), largest(32 * 32), one(32 * 32);
  for (int i = 0; i < 32 * 32; ++i) {
    if (i % 33 == 0) diagonal[i] = i < 200 ? 2.0f : 1.0f;
    graded[i] = std::ldexp(1.0f + static_cast<float>(i % 7), i / 32 % 2 ? -(i % 32) * 3 : -60);
    largest[i] = i % 3 == 0 ? -3.0e38f : 3.0e38f;
    one[i] = i == 77 ? 5.0f : 0.0f;
  }
  for (const auto& x : {diagonal, graded, largest, one}) {
    expect_cpu_fields(x, 32, 32, DType::kFloat32);
    expect_cpu_fields(x, 16, 64, DType::kFloat32);
    expect_cpu_fields(x, 64, 16, DType::kFloat32);
    expect_cpu_fields(x, 1024, 1, DType::kFloat32);
  }
}

}  // namespace
}  // namespace qvlmem
