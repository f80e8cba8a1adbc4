// SPDX-License-Identifier: Apache-2.0
// What every back end's error measurement is tested on.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "kernels/error/error.h"

namespace qvlmem {

constexpr DType kErrorDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16,
                                  DType::kFloat64};

inline bool same_errors(const ErrorMeasure& a, const ErrorMeasure& b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}

struct ErrorCase {
  std::vector<double> x, y;
};

inline ErrorCase noisy(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  ErrorCase pair{std::vector<double>(n), std::vector<double>(n)};
  for (int64_t i = 0; i < n; ++i) {
    pair.x[i] = normal(random);
    // Larger towards the end, so that the worst row is not the first.
    const double noise = 0.02 + 0.05 * static_cast<double>(i) / static_cast<double>(n);
    pair.y[i] = pair.x[i] + noise * normal(random);
  }
  return pair;
}

constexpr std::pair<int64_t, int64_t> kErrorShapes[] = {
    {1, 1},     {40, 1},     {70000, 1}, {9, 15},   {9, 16},    {9, 17},
    {3, 72},    {5, 31},     {7, 129},   {2, 4304}, {1, 65536}, {1, 65537},
    {3, 70001}, {2, 140000}, {500, 300}, {4, 2049}, {1, 300000}};

// Rows whose squares leave the range of float64 or of float32, beside rows that do not.
inline ErrorCase extreme_rows(int64_t rows, int64_t cols, DType dtype) {
  ErrorCase p = noisy(rows * cols, 9);
  for (int64_t r = 0; r < rows; ++r) {
    double factor = r % 3 == 0 ? 1.0 : (r % 3 == 1 ? 1e-37 : 1e37);
    if (dtype == DType::kFloat64) factor = r % 3 == 0 ? 1.0 : (r % 3 == 1 ? 1e-305 : 1e306);
    if (dtype == DType::kFloat16) factor = r % 3 == 0 ? 1.0 : (r % 3 == 1 ? 1e-4 : 1e3);
    for (int64_t c = 0; c < cols; ++c) {
      p.x[r * cols + c] *= factor;
      p.y[r * cols + c] *= factor;
    }
  }
  return p;
}

}  // namespace qvlmem
