// SPDX-License-Identifier: Apache-2.0
// What CUDA gathers gives the profile of the CPU.
#include "kernels/profile/profile_cuda.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "cpp_tests/kernels/cuda_fixture.h"
#include "cpp_tests/kernels/profile_driver.h"
#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {
namespace {

class ProfileCudaTest : public CudaTest {};

TEST_F(ProfileCudaTest, GivesTheNumbersOfTheCpu) {
  for (const auto& [rows, cols] : kProfileShapes)
    for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
      SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols) + " dtype " +
                   std::to_string(int(dtype)));
      const auto x = as_dtype(profile_sample(rows * cols, 5), dtype);
      const ProfilePlan plan = profile_plan(rows, cols, dtype);
      const size_t size = dtype_bytes(dtype);
      DeviceBytes values(x.data(), rows * cols * size, size);
      DeviceBytes gathered(profile_gathered_count(plan) * size);
      ASSERT_EQ(profile_gather_cuda(plan, values.data(), gathered.data(), nullptr), cudaSuccess);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      const ProfileFields got = profile_gathered(plan, gathered.read<uint8_t>());
      const ProfileFields expected = profile_of(x, rows, cols, dtype);
      EXPECT_EQ(std::memcmp(got.data(), expected.data(), sizeof(got)), 0);
    }
}

}  // namespace
}  // namespace qvlmem
