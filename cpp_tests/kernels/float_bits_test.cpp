// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/float_bits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace qvlmem {
namespace {

// The nearest of all finite halves, ties to the even pattern: slow and independent of the formula.
uint16_t nearest_half(float value) {
  uint16_t best = 0;
  double best_distance = INFINITY;
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const double distance =
        std::fabs(std::fabs(double{value}) - double{to_float(Half{uint16_t(bits)})});
    if (distance < best_distance || (distance == best_distance && bits % 2 == 0)) {
      best_distance = distance;
      best = static_cast<uint16_t>(bits);
    }
  }
  return best | (std::signbit(value) ? 0x8000 : 0);
}

TEST(FloatBitsTest, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Half half{static_cast<uint16_t>(bits)};
    const bool is_nan = (bits & 0x7fff) > 0x7c00;
    const uint32_t expected = is_nan ? bits | 0x0200 : bits;
    EXPECT_EQ(to_half(to_float(half)).bits, expected);
  }
}

TEST(FloatBitsTest, EveryBFloat16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const bool is_nan = (bits & 0x7fff) > 0x7f80;
    const uint32_t expected = is_nan ? bits | 0x0040 : bits;
    EXPECT_EQ(to_bfloat16(to_float(BFloat16{static_cast<uint16_t>(bits)})).bits, expected);
  }
}

TEST(FloatBitsTest, HalfRoundsToNearestEven) {
  const std::vector<float> values = {
      0.0f,       -0.0f,        0x1p-24f,     0x1p-25f, 0x1.8p-25f,   0x1.000002p-25f,
      0x1.8p-24f, 0x1.ffcp-15f, 0x1.ffep-15f, 1.0f,     0x1.002p0f,   0x1.006p0f,
      -3.14159f,  65503.9f,     65519.99f,    1e-8f,    0x1.ffffp-15f};
  for (float value : values) EXPECT_EQ(to_half(value).bits, nearest_half(value)) << value;
  EXPECT_EQ(to_half(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_half(-INFINITY).bits, 0xfc00);
}

TEST(FloatBitsTest, BFloat16TiesGoToEven) {
  EXPECT_EQ(to_bfloat16(bits_to_float(0x3f808000)).bits, 0x3f80);
  EXPECT_EQ(to_bfloat16(bits_to_float(0x3f818000)).bits, 0x3f82);
  EXPECT_EQ(to_bfloat16(bits_to_float(0x3f808001)).bits, 0x3f81);
  EXPECT_EQ(to_bfloat16(kFloat32Max).bits, 0x7f80);
}

TEST(FloatBitsTest, DecodersSaturate) {
  EXPECT_EQ(to_float(from_float_saturating<Half>(1e9f)), kFloat16Max);
  EXPECT_EQ(to_float(from_float_saturating<BFloat16>(-kFloat32Max)), -kBFloat16Max);
  EXPECT_EQ(from_float_saturating<float>(INFINITY), kFloat32Max);
}

}  // namespace
}  // namespace qvlmem
