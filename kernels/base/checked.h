// SPDX-License-Identifier: Apache-2.0
// Size arithmetic that cannot wrap. Every size that comes from outside goes through these.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/macros.h"

namespace qvlmem {

// *out = a * b; false (and *out untouched) where an operand is negative or the product exceeds 63
// bits.
inline bool checked_mul(int64_t a, int64_t b, int64_t* out) {
  int64_t product;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) return false;
  *out = product;
  return true;
}

// *out = a + b; false (and *out untouched) where an operand is negative or the sum exceeds 63 bits.
inline bool checked_add(int64_t a, int64_t b, int64_t* out) {
  int64_t sum;
  if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &sum)) return false;
  *out = sum;
  return true;
}

// REQUIRES: a >= 0, b > 0. Does not overflow for any such a.
QVLMEM_HD constexpr int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

}  // namespace qvlmem
