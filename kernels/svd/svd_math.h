// SPDX-License-Identifier: Apache-2.0
// Per-element parts of svd: one text for host and device.
#pragma once

#include <cstdint>

#include "kernels/base/float_bits.h"
#include "kernels/base/philox.h"

namespace qvlmem {

// ---- Random signs ----

constexpr int kSvdSignBits = 32;                      // signs in a word
constexpr int64_t kSvdBlockSigns = 4 * kSvdSignBits;  // in a Philox block

// Signs [128 block, 128 block + 128) of a sequence.
QVLMEM_HD inline PhiloxBlock svd_sign_block(uint64_t seed, uint16_t stream, int64_t block) {
  return philox4x32(seed, (static_cast<uint64_t>(stream) << 40) + static_cast<uint64_t>(block));
}

// The bit becomes the sign of 1.0f.
QVLMEM_HD inline float svd_sign(uint32_t word, int bit) {
  return bits_to_float(0x3f800000u | (word >> bit << 31));
}

// ---- Products of factors ----

// How u v, of inner dimension `rank`, is computed in float32: as (u 2^-u_exponent)
// (v 2^-v_exponent), times 2^(u_exponent + v_exponent).
struct SvdProductScale {
  int u_exponent, v_exponent;
  bool is_finite;  // both factors are: then the product is made finite too
};

// Whether float32 holds every partial sum of u v as it is. REQUIRES: finite magnitudes.
QVLMEM_HD inline bool svd_product_fits(float u_magnitude, float v_magnitude, int64_t rank) {
  return static_cast<double>(u_magnitude) * static_cast<double>(v_magnitude) *
             static_cast<double>(rank) <
         static_cast<double>(kFloat32Max);
}

// 2^exponent. REQUIRES: -126 <= exponent <= 127.
QVLMEM_HD inline float svd_power_of_two(int exponent) {
  return bits_to_float(static_cast<uint32_t>(exponent + 127) << 23);
}

// The exponent of a normal float32 by its bits, at most 126: then 2^-exponent is normal too.
QVLMEM_HD inline int svd_exponent(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 23) - 127;
  return exponent > 126 ? 126 : exponent;
}

// By the largest magnitudes as bits of a float32. Exponents are 0 but where partial sums could
// overflow; the factors' largest magnitudes then become numbers in [1, 4).
QVLMEM_HD inline SvdProductScale svd_product_scale(uint32_t u_bits, uint32_t v_bits, int64_t rank) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  if (u_bits >= kInfinity || v_bits >= kInfinity) return {0, 0, false};
  if (svd_product_fits(bits_to_float(u_bits), bits_to_float(v_bits), rank)) return {0, 0, true};
  return {svd_exponent(u_bits), svd_exponent(v_bits), true};
}

template <class T>
QVLMEM_HD inline T svd_round(float value);
template <>
QVLMEM_HD inline float svd_round<float>(float value) {
  return value;
}
template <>
QVLMEM_HD inline Half svd_round<Half>(float value) {
  return to_half(value);
}
template <>
QVLMEM_HD inline BFloat16 svd_round<BFloat16>(float value) {
  return to_bfloat16(value);
}

// An element of u v from one of the scaled product.
template <class T>
QVLMEM_HD inline T svd_finish(float value, const SvdProductScale& scale) {
  if (!scale.is_finite) return svd_round<T>(value);
  // In two steps, as one power of two may not fit; beyond float32 an infinity, which saturates.
  const int exponent = scale.u_exponent + scale.v_exponent, half = exponent / 2;
  return from_float_saturating<T>(value * svd_power_of_two(half) *
                                  svd_power_of_two(exponent - half));
}

}  // namespace qvlmem
