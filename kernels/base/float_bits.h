// SPDX-License-Identifier: Apache-2.0
// Conversions between float32 and the 16-bit formats, with the same bits on every back end: by
// integers alone, or by an instruction that gives what the integers give. Round to nearest, ties to
// even; a NaN becomes quiet and keeps the payload bits that fit, as F16C does (PTX's cvt gives one
// NaN for all, so on a device NaN goes the way of the integers).
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/base/dtype.h"
#include "kernels/base/macros.h"

namespace qvlmem {

constexpr float kFloat32Max = 0x1.fffffep127f;
constexpr float kFloat32MinNormal = 0x1p-126f;
constexpr float kFloat16Max = 65504.0f;
constexpr float kBFloat16Max = 0x1.fep127f;

QVLMEM_HD inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

QVLMEM_HD inline float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

QVLMEM_HD inline float to_float(float value) { return value; }

QVLMEM_HD inline float to_float(BFloat16 value) {
  return bits_to_float(static_cast<uint32_t>(value.bits) << 16);
}

// number_to_...: the conversion of what is no NaN, which on a device is half of the work.
QVLMEM_HD inline float number_to_float(Half value) {
#ifdef __CUDA_ARCH__
  float converted;
  asm("cvt.f32.f16 %0, %1;" : "=f"(converted) : "h"(value.bits));
  return converted;
#else
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude == 0x7c00u) return bits_to_float(sign | 0x7f800000u);
  if (magnitude >= 0x0400u) return bits_to_float(sign | ((magnitude << 13) + 0x38000000u));
  // Subnormal: magnitude * 2^-24 is exact in float32.
  const float value32 = static_cast<float>(magnitude) * 0x1p-24f;
  return bits_to_float(sign | float_to_bits(value32));
#endif
}

QVLMEM_HD inline BFloat16 number_to_bfloat16(float value) {
  const uint32_t bits = float_to_bits(value);
  return BFloat16{static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

QVLMEM_HD inline Half number_to_half(float value) {
#ifdef __CUDA_ARCH__
  uint16_t converted;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(converted) : "f"(value));
  return Half{converted};
#else
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude >= 0x477ff000u) {  // at least 65520: rounds to infinity
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // at least 2^-14: a normal half
    half = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  } else {
    // Adding 0.5 leaves the value's multiple of 2^-24 in the low mantissa bits, rounded to even.
    half = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
  }
  return Half{static_cast<uint16_t>(sign | half)};
#endif
}

QVLMEM_HD inline float to_float(Half value) {
  // The sign and the payload at their places: the sign fills what the shift leaves free.
  const uint32_t high = static_cast<uint32_t>(value.bits) << 16;
  const uint32_t moved = static_cast<uint32_t>(static_cast<int32_t>(high) >> 3) & 0x8fffe000u;
  const float number = number_to_float(value);
  return (value.bits & 0x7fffu) > 0x7c00u ? bits_to_float(moved | 0x7fc00000u) : number;
}

QVLMEM_HD inline BFloat16 to_bfloat16(float value) {
  const uint32_t bits = float_to_bits(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return nan ? BFloat16{static_cast<uint16_t>(bits >> 16 | 0x0040u)} : number_to_bfloat16(value);
}

QVLMEM_HD inline Half to_half(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t nan_bits = (bits >> 16 & 0x8000u) | 0x7e00u | (bits >> 13 & 0x3ffu);
  const Half number = number_to_half(value);
  return (bits & 0x7fffffffu) > 0x7f800000u ? Half{static_cast<uint16_t>(nan_bits)} : number;
}

// Conversions that never turn a finite value into an infinity: what decoders use.
QVLMEM_HD inline float clamp_finite(float value, float limit) {
  return value > limit ? limit : (value < -limit ? -limit : value);
}

template <class T>
QVLMEM_HD inline T from_float_saturating(float value);
template <>
QVLMEM_HD inline float from_float_saturating<float>(float value) {
  return clamp_finite(value, kFloat32Max);
}
template <>
QVLMEM_HD inline Half from_float_saturating<Half>(float value) {
  return to_half(clamp_finite(value, kFloat16Max));
}
template <>
QVLMEM_HD inline BFloat16 from_float_saturating<BFloat16>(float value) {
  return to_bfloat16(clamp_finite(value, kBFloat16Max));
}

}  // namespace qvlmem
