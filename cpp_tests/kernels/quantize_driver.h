// SPDX-License-Identifier: Apache-2.0
// Whole tensors through the CPU kernels of quantize, and the shapes that every back end is tested
// on.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/quantize/quantize.h"

namespace qvlmem {

struct QuantizedParts {
  std::vector<uint8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> zero;
  bool operator==(const QuantizedParts& other) const {
    return q == other.q && scale == other.scale && zero == other.zero;
  }
};

// Encodes unit by unit, in reverse, to show that units are independent.
inline QuantizedParts quantize_on_cpu(const QuantizePlan& plan, const void* x, DType dtype,
                                      const uint64_t* seed = nullptr) {
  QuantizedParts e;
  e.q.assign(plan.rows * plan.row_bytes, 0xee);
  e.scale.assign(plan.group_count, 1.0f);
  if (!plan.symmetric) e.zero.assign(plan.group_count, 0);
  if (plan.fused) {
    for (int64_t u = plan.unit_count; u-- > 0;) {
      EXPECT_EQ(quantize_encode_cpu(plan, x, dtype, u, u + 1, seed, e.q.data(), e.scale.data(),
                                    e.zero.data()),
                Status::kOk);
    }
    return e;
  }
  std::vector<QuantizeRange> merged(plan.group_count);
  for (int64_t u = 0; u < plan.unit_count; ++u) {
    QuantizeRange range;
    quantize_range_cpu(plan, x, dtype, u, u + 1, &range);
    QuantizeRange& m = merged[quantize_group_of_unit(plan, u)];
    m.min = std::min(m.min, range.min);
    m.max = std::max(m.max, range.max);
    m.magnitude_bits = std::max(m.magnitude_bits, range.magnitude_bits);
  }
  for (int64_t g = 0; g < plan.group_count; ++g) {
    const QuantizeGroup group = quantize_group(merged[g], plan.bits, plan.symmetric);
    e.scale[g] = group.scale;
    if (!plan.symmetric) e.zero[g] = group.zero_point;
  }
  for (int64_t u = plan.unit_count; u-- > 0;) {
    quantize_encode_scaled_cpu(plan, x, dtype, u, u + 1, seed, e.scale.data(), e.zero.data(),
                               e.q.data());
  }
  return e;
}

inline int64_t group_of(const QuantizePlan& plan, int64_t row, int64_t col) {
  return plan.per_tensor ? 0 : row * plan.groups_per_row + col / plan.group;
}

struct QuantizeCase {
  int64_t rows, cols;
  int bits;
  bool symmetric;
  int64_t group;
  DType dtype;
};

inline std::vector<QuantizeCase> quantize_cases() {
  std::vector<QuantizeCase> all;
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1},   {3, 72},    {2, 4304}, {5, 31},
                                                {7, 129}, {1, 70001}, {40, 1},   {2, 40000}};
  for (auto [rows, cols] : shapes)
    for (int bits : {8, 4})
      for (bool symmetric : {true, false})
        for (int64_t group : {0, -1, 7, 32, 128, 50000})
          for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16})
            all.push_back({rows, cols, bits, symmetric, group, dtype});
  return all;
}

inline std::string name_of(const QuantizeCase& c) {
  return std::to_string(c.rows) + "x" + std::to_string(c.cols) + " bits " + std::to_string(c.bits) +
         (c.symmetric ? " symmetric" : " asymmetric") + " group " + std::to_string(c.group) +
         " dtype " + std::to_string(int(c.dtype));
}

inline std::vector<float> quantize_sample(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.3f, 2.0f);
  std::vector<float> values(n);
  for (auto& v : values) v = normal(random);
  if (n > 20) values[17] = -0.0f, values[3] = 1e-40f, values[11] = 60000.0f;
  return values;
}

}  // namespace qvlmem
