// SPDX-License-Identifier: Apache-2.0
// Bit patterns of float64, for host and device.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/base/float_bits.h"
#include "kernels/base/macros.h"

namespace qvlmem {

constexpr double kFloat64Max = 0x1.fffffffffffffp1023;

QVLMEM_HD inline uint64_t double_to_bits(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

QVLMEM_HD inline double bits_to_double(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// 2^exponent. REQUIRES: -1022 <= exponent <= 1023.
QVLMEM_HD inline double power_of_two(int exponent) {
  return bits_to_double(static_cast<uint64_t>(exponent + 1023) << 52);
}

// floor(log2(|value|)) for a normal value; -1023 for zero and subnormals, 1024 where not finite.
QVLMEM_HD inline int exponent_of(double value) {
  return static_cast<int>(double_to_bits(value) >> 52 & 0x7ffu) - 1023;
}

QVLMEM_HD inline bool is_finite(float value) {
  return (float_to_bits(value) & 0x7fffffffu) < 0x7f800000u;
}
QVLMEM_HD inline bool is_finite(double value) { return exponent_of(value) < 1024; }

}  // namespace qvlmem
