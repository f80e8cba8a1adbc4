// SPDX-License-Identifier: Apache-2.0
// Whole tensors through the CPU kernels of the float16 codec, and the values that every back end is
// tested on.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/base/float64_bits.h"
#include "kernels/half/half.h"

namespace qvlmem {

struct EncodedHalves {
  std::vector<uint16_t> half;
  double scale = 0.0;
  int passes = 0;
  bool operator==(const EncodedHalves& other) const {
    return half == other.half && scale == other.scale;
  }
};

inline HalfPlan half_plan(int64_t numel, DType dtype) {
  HalfPlan plan;
  EXPECT_EQ(make_half_plan(numel, dtype, &plan), Status::kOk);
  return plan;
}

// Unit by unit, in reverse, to show that units are independent; or all units in one call.
inline EncodedHalves encode_halves(const HalfPlan& plan, const void* x, bool one_call = false) {
  EncodedHalves e;
  e.half.assign(plan.numel + 1, 0xeeee);
  e.scale = half_propose_scale_cpu(plan, x);
  for (;;) {
    ++e.passes;
    double magnitude = 0.0;
    if (one_call) {
      magnitude = half_encode_cpu(plan, x, e.scale, 0, plan.unit_count, e.half.data());
    } else {
      for (int64_t u = plan.unit_count; u-- > 0;) {
        magnitude = std::max(magnitude, half_encode_cpu(plan, x, e.scale, u, u + 1, e.half.data()));
      }
    }
    const double settled = half_settle_scale(plan, e.scale, magnitude);
    if (settled == e.scale) return e;
    e.scale = settled;
    EXPECT_LT(e.passes, 2) << "the settled scale does not stand";
    if (e.passes >= 2) return e;
  }
}

inline std::vector<uint8_t> decode_halves(const std::vector<uint16_t>& half, double scale,
                                          int64_t numel, DType dtype) {
  const HalfPlan plan = half_plan(numel, dtype);
  std::vector<uint8_t> y(numel * dtype_bytes(dtype) + 1, 0xcc);
  for (int64_t u = plan.unit_count; u-- > 0;) {
    half_decode_cpu(plan, half.data(), scale, u, u + 1, y.data());
  }
  EXPECT_EQ(y.back(), 0xcc);
  return y;
}

inline std::vector<double> half_sample(int64_t n, double factor, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0.1, 1.0);
  std::vector<double> values(n);
  for (auto& v : values) v = normal(random) * factor;
  return values;
}

// The special values of every dtype that is scaled.
inline std::vector<std::vector<double>> half_specials(DType dtype) {
  const double largest = dtype == DType::kFloat64 ? kFloat64Max : double{kBFloat16Max};
  const double smallest = dtype == DType::kFloat64 ? 0x1p-1074 : 0x1p-133;
  return {
      {},
      {0.0, -0.0},
      {NAN, INFINITY, -INFINITY},
      {NAN, 3.0, INFINITY, -INFINITY, -0.0},
      {largest, -largest, 1.0, INFINITY},
      {smallest, -smallest, 0.0, NAN},
      {smallest * 5, largest},
  };
}

constexpr DType kScaledDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat64};

}  // namespace qvlmem
