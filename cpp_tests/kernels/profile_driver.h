// SPDX-License-Identifier: Apache-2.0
// Whole tensors through the CPU's profile, and what every back end's is tested on.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "kernels/profile/profile.h"

namespace qvlmem {

using ProfileFields = std::array<double, kProfileFields>;

inline ProfilePlan profile_plan(int64_t rows, int64_t cols, DType dtype) {
  ProfilePlan plan;
  EXPECT_EQ(make_profile_plan(rows, cols, dtype, &plan), Status::kOk);
  EXPECT_LE(plan.workspace_bytes, size_t{256} << 10);
  return plan;
}

// Exactly as large as announced, and full of what an earlier use might have left.
inline std::vector<uint32_t> profile_workspace(const ProfilePlan& plan) {
  return std::vector<uint32_t>(plan.workspace_bytes / 4, 0xffffffffu);
}

inline ProfileFields profile_of(const std::vector<uint8_t>& x, int64_t rows, int64_t cols,
                                DType dtype) {
  const ProfilePlan plan = profile_plan(rows, cols, dtype);
  ProfileFields fields;
  profile_cpu(plan, x.data(), profile_workspace(plan).data(), fields.data());
  return fields;
}

// The whole of small tensors; runs of long rows, whole short rows; blocks of every kind.
constexpr std::pair<int64_t, int64_t> kProfileShapes[] = {
    {0, 4},     {4, 0},      {1, 1},     {5, 1},     {1, 16384},  {16384, 1},  {31, 129},
    {72, 7},    {3, 4304},   {16, 16},   {1, 50000}, {50000, 1},  {30000, 20}, {3, 70001},
    {4000, 33}, {100, 4304}, {129, 300}, {33, 1000}, {257, 1025}, {1, 32768},  {2000, 100}};

// Zeros of both signs, an outlier, and values that are not finite among the rest.
inline std::vector<float> profile_values(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.5f, 1.0f);
  std::vector<float> values(n);
  for (int64_t i = 0; i < n; ++i) {
    values[i] = normal(random);
    if (i % 5 == 0) values[i] = i % 2 ? 0.0f : -0.0f;
    if (i % 1009 == 33) values[i] = 500.0f;
    if (i % 4001 == 50) values[i] = NAN;
    if (i % 4003 == 51) values[i] = -INFINITY;
    if (i % 17 == 3) values[i] *= 1e-7f;
  }
  return values;
}

}  // namespace qvlmem
