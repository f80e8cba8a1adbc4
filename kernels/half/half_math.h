// SPDX-License-Identifier: Apache-2.0
// Scale and per-element formulas of the float16 codec: one text for host and device.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/float64_bits.h"
#include "kernels/base/float_bits.h"
#include "kernels/base/macros.h"
#include "kernels/base/sample.h"

namespace qvlmem {

// From here on a value rounds to an infinite half.
constexpr double kHalfOverflow = 65520.0;

// Exponents at which a scale puts the largest magnitude: [2^12, 2^13) leaves a sample's maximum
// room to be an eighth of the true one; [2^14, 2^15) is for a maximum that is known.
constexpr int kHalfProposedExponent = 12;
constexpr int kHalfExactExponent = 14;
constexpr double kHalfLeastMagnitude = 1024.0;  // 2^10, the least that a proposal may leave it at

// The smallest scale: the smallest normal number of the scale's own dtype.
QVLMEM_HD inline int half_least_exponent(DType dtype) {
  return dtype == DType::kFloat64 ? -1022 : -126;
}

// The exponent of the power of two that brings `magnitude` (finite, not negative) into [2^exponent,
// 2^(exponent + 1)), or of the smallest scale; 0 for 0.
QVLMEM_HD inline int half_exponent_for(DType dtype, double magnitude, int exponent) {
  if (magnitude == 0.0) return 0;
  // For a subnormal double exponent_of is too large, but its scale is the smallest in any case.
  const int wanted = exponent_of(magnitude) - exponent;
  const int least = half_least_exponent(dtype);
  return wanted < least ? least : wanted;
}

// The exponent of the final scale. Of magnitude it matters only whether it is 0, its exponent and
// how it compares with 65520 times a power of two.
QVLMEM_HD inline int half_settle_exponent(DType dtype, int proposed, double magnitude) {
  if (magnitude == 0.0) return 0;
  const double scaled = magnitude * power_of_two(-proposed);
  const bool large_enough = scaled >= kHalfLeastMagnitude || proposed == half_least_exponent(dtype);
  if (large_enough && scaled < kHalfOverflow) return proposed;
  return half_exponent_for(dtype, magnitude, kHalfExactExponent);
}

// ---- The sample that proposes a scale: a head, then short runs spread over the tensor ----

// The head is long because the first tokens of a sequence carry a transformer's largest
// activations.
constexpr int64_t kHalfSampleHead = 8192;
constexpr int64_t kHalfSampleRuns = 512;
constexpr int64_t kHalfSampleRun = 16;
// Up to this many elements the sample is the tensor.
constexpr int64_t kHalfSampleAll = kHalfSampleHead + kHalfSampleRuns * kHalfSampleRun;

// First element of run `run`. REQUIRES: numel > kHalfSampleAll, 0 <= run < kHalfSampleRuns.
QVLMEM_HD inline int64_t half_sample_begin(int64_t numel, int64_t run) {
  return sample_begin(numel, kHalfSampleRuns, run, kHalfSampleRun, run);
}

// ---- Elements ----

// Rounds to nearest, ties to even, once: by way of a float32 that is cut, with its last bit set
// where that loses anything (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums:
// proved algorithms using rounding to odd", 2008). On SM61 float64 arithmetic is what costs.
QVLMEM_HD inline Half to_half(double value) {
  const uint64_t bits = double_to_bits(value);
  const uint64_t magnitude = bits & 0x7fffffffffffffffu;
  const uint32_t sign = static_cast<uint32_t>(bits >> 48) & 0x8000u;
  if (magnitude > 0x7ff0000000000000u) {
    const uint32_t payload = static_cast<uint32_t>(bits >> 42) & 0x3ffu;
    return Half{static_cast<uint16_t>(sign | 0x7e00u | payload)};
  }
  if (magnitude >= 0x47f0000000000000u)
    return Half{static_cast<uint16_t>(sign | 0x7c00u)};                           // 2^128
  if (magnitude < 0x3e50000000000000u) return Half{static_cast<uint16_t>(sign)};  // 2^-26
  const uint32_t cut = static_cast<uint32_t>((magnitude - 0x3800000000000000u) >> 29);
  const uint32_t lost = (magnitude & 0x1fffffffu) != 0 ? 1u : 0u;
  return Half{static_cast<uint16_t>(sign | to_half(bits_to_float(cut | lost)).bits)};
}

// inverse: 1 / scale, exact because both are powers of two within the type's normal range. What is
// not finite is converted as it is, for not every back end multiplies a NaN to the same bits.
QVLMEM_HD inline Half half_encode_value(float value, float inverse) {
  return to_half(is_finite(value) ? value * inverse : value);
}
QVLMEM_HD inline Half half_encode_value(double value, double inverse) {
  return to_half(is_finite(value) ? value * inverse : value);
}

QVLMEM_HD inline float clamp_magnitude(float value, float limit) {
  return value > limit ? limit : (value < -limit ? -limit : value);
}
QVLMEM_HD inline double clamp_magnitude(double value, double limit) {
  return value > limit ? limit : (value < -limit ? -limit : value);
}

template <class T>
struct HalfOutput {};
template <>
struct HalfOutput<float> {
  static constexpr float kLimit = kFloat32Max;
  QVLMEM_HD static float from(float value) { return value; }
};
template <>
struct HalfOutput<Half> {
  static constexpr float kLimit = kFloat16Max;
  QVLMEM_HD static Half from(float value) { return to_half(value); }
};
template <>
struct HalfOutput<BFloat16> {
  static constexpr float kLimit = kBFloat16Max;
  QVLMEM_HD static BFloat16 from(float value) { return to_bfloat16(value); }
};
template <>
struct HalfOutput<double> {
  static constexpr double kLimit = kFloat64Max;
  QVLMEM_HD static double from(double value) { return value; }
};

// half * scale, saturating. With a float32 scale the float32 product is the exact product rounded
// once, so both forms give the same value where the scale fits float32.
template <class T>
QVLMEM_HD inline T half_decode_value(Half half, float scale) {
  const float value = to_float(half);
  if (!is_finite(value)) return HalfOutput<T>::from(value);
  return HalfOutput<T>::from(clamp_magnitude(value * scale, HalfOutput<T>::kLimit));
}
template <class T>
QVLMEM_HD inline T half_decode_value(Half half, double scale) {
  const float value = to_float(half);
  if (!is_finite(value)) return HalfOutput<T>::from(value);
  const double limit = HalfOutput<T>::kLimit;
  const double product = clamp_magnitude(double{value} * scale, limit);
  using Wide = decltype(HalfOutput<T>::kLimit);
  return HalfOutput<T>::from(static_cast<Wide>(product));
}

}  // namespace qvlmem
