// SPDX-License-Identifier: Apache-2.0
// Per-group and per-element formulas of quantize: one text for host and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/base/float_bits.h"
#include "kernels/base/philox.h"

namespace qvlmem {

// The values of one group: its range, which always includes 0, and the bits of its largest
// magnitude (as an integer, so that a NaN or an infinity outranks every finite value).
struct QuantizeRange {
  float min = 0.0f;
  float max = 0.0f;
  uint32_t magnitude_bits = 0;
};

QVLMEM_HD inline bool range_is_finite(const QuantizeRange& range) {
  return range.magnitude_bits < 0x7f800000u;
}

struct QuantizeGroup {
  float scale;
  float inverse;       // 1 / scale, correctly rounded; what the encoder multiplies by
  int32_t zero_point;  // 0 where symmetric
};

// Round half to even for |value| < 2^22, by the addition that every back end does the same way.
QVLMEM_HD inline float round_half_even(float value) {
  const float magic = 12582912.0f;  // 1.5 * 2^23
  return (value + magic) - magic;
}

QVLMEM_HD inline QuantizeGroup quantize_group(const QuantizeRange& range, int bits,
                                              bool symmetric) {
  QuantizeGroup group{1.0f, 1.0f, 0};
  if (range.magnitude_bits == 0) {  // all zero, or no values
    if (!symmetric) group.zero_point = bits == 8 ? -128 : 0;
    return group;
  }
  float scale;
  if (symmetric) {
    scale = bits_to_float(range.magnitude_bits) / (bits == 8 ? 127.0f : 7.0f);
  } else {
    const float steps = bits == 8 ? 255.0f : 15.0f;
    scale = range.max / steps - range.min / steps;  // the difference itself may overflow
  }
  if (!(scale > kFloat32MinNormal)) scale = kFloat32MinNormal;
  group.scale = scale;
  group.inverse = 1.0f / scale;
  if (!symmetric) {
    const int32_t low = bits == 8 ? -128 : 0;
    group.zero_point = low - static_cast<int32_t>(round_half_even(range.min * group.inverse));
  }
  return group;
}

// The integer of one element. `uniform` in [0, 1): only for stochastic rounding.
QVLMEM_HD inline int32_t quantize_nearest(float value, const QuantizeGroup& group, int32_t low,
                                          int32_t high) {
  const int32_t q = static_cast<int32_t>(round_half_even(value * group.inverse)) + group.zero_point;
  return q < low ? low : (q > high ? high : q);
}

QVLMEM_HD inline int32_t quantize_stochastic(float value, const QuantizeGroup& group, int32_t low,
                                             int32_t high, float uniform) {
  const float steps = value * group.inverse;
  const float down = floorf(steps);
  const int32_t q =
      static_cast<int32_t>(down) + (steps - down > uniform ? 1 : 0) + group.zero_point;
  return q < low ? low : (q > high ? high : q);
}

// The difference wraps: a zero point comes from outside and may be anything.
QVLMEM_HD inline float dequantize_value(int32_t q, float scale, int32_t zero_point) {
  const uint32_t steps = static_cast<uint32_t>(q) - static_cast<uint32_t>(zero_point);
  return static_cast<float>(static_cast<int32_t>(steps)) * scale;
}

QVLMEM_HD inline int32_t quantize_low(int bits, bool symmetric) {
  return bits == 8 ? (symmetric ? -127 : -128) : (symmetric ? -7 : 0);
}

QVLMEM_HD inline int32_t quantize_high(int bits, bool symmetric) {
  return bits == 8 ? 127 : (symmetric ? 7 : 15);
}

}  // namespace qvlmem
