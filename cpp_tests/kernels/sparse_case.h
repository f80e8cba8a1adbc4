// SPDX-License-Identifier: Apache-2.0
// Inputs for the tests of sparse kernels.
#pragma once

#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/sparse/sparse.h"

namespace qvlmem {

inline uint32_t bits_of(const std::vector<uint8_t>& x, DType dtype, int64_t i) {
  uint32_t bits = 0;
  std::memcpy(&bits, &x[i * dtype_bytes(dtype)], dtype_bytes(dtype) == 2 ? 2 : 4);
  return bits;
}

// Values with many ties and zeros of both signs; `density` of them are not zero.
inline std::vector<uint8_t> sparse_sample(int64_t n, double density, DType dtype,
                                          uint32_t seed = 3) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform;
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) {
    v = uniform(random) < 0.1 ? -0.0f : 0.0f;
    if (uniform(random) < density) v = uniform(random) < 0.3 ? 0.5f : normal(random);
  }
  if (n > 40 && density > 0) values[7] = 1e-40f, values[39] = 65504.0f, values[20] = 6e-8f;
  return as_dtype(values, dtype);
}

// Stored elements before each unit, counted in reverse.
inline std::vector<int64_t> offsets_of(const SparsePlan& plan, const SparseRule& rule,
                                       const void* x) {
  std::vector<int64_t> offsets(plan.unit_count + 1);
  for (int64_t u = plan.unit_count; u-- > 0;) {
    sparse_count_kept_cpu(plan, rule, x, u, u + 1, &offsets[u + 1]);
  }
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  return offsets;
}

}  // namespace qvlmem
