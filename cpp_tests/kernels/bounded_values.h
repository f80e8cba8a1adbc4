// SPDX-License-Identifier: Apache-2.0
// Values that a bound is hard to keep on, or not.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {

enum class Values { kGaussian, kLaplace, kOutliers, kConstant, kTiny, kHuge, kPositive, kSparse };
constexpr Values kAllValues[] = {Values::kGaussian, Values::kLaplace, Values::kOutliers,
                                 Values::kConstant, Values::kTiny,    Values::kHuge,
                                 Values::kPositive, Values::kSparse};

// Values of one kind, within the finite range of dtype.
inline std::vector<uint8_t> sample(Values kind, int64_t n, DType dtype) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::exponential_distribution<float> exponential(1.0f);
  const float largest = dtype == DType::kFloat16 ? 60000.0f : 3e38f;
  const float smallest = dtype == DType::kFloat16 ? 0x1p-24f : 0x1p-133f;  // of every 16-bit type
  std::vector<float> x(n);
  for (auto& v : x) {
    switch (kind) {
      case Values::kGaussian:
        v = normal(random);
        break;
      case Values::kLaplace:
        v = (random() % 2 ? 1.0f : -1.0f) * exponential(random);
        break;
      case Values::kOutliers:  // as in the hidden states of a language model
        v = normal(random) * (random() % 3000 == 0 ? 800.0f : 1.0f);
        break;
      case Values::kConstant:
        v = 3.7f;
        break;
      case Values::kTiny:
        v = normal(random) * 40 * smallest;
        break;
      case Values::kHuge:
        v = (random() % 2 ? largest : -largest) * (random() % 7 / 6.0f);
        break;
      case Values::kPositive:
        v = std::max(0.0f, 1000.0f + 3 * normal(random));
        break;
      case Values::kSparse:
        v = random() % 10 == 0 ? normal(random) : -0.0f;
        break;
    }
  }
  if (kind == Values::kOutliers && n > 3) x[n / 2] = 22552.0f;
  return as_dtype(x, dtype);
}

}  // namespace qvlmem
