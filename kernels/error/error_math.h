// SPDX-License-Identifier: Apache-2.0
// How errors are summed and compared: one text for host and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/base/float64_bits.h"
#include "kernels/base/macros.h"

namespace qvlmem {

// Sums over pairs (x, y). The squares stand for error_sq * 4^exponent and norm_sq * 4^exponent:
// float64 values whose squares leave float64's range are summed scaled. Elsewhere exponent is 0.
struct ErrorSums {
  double error_sq = 0.0;   // sum of (x - y)^2
  double norm_sq = 0.0;    // sum of x^2
  double max_error = 0.0;  // largest |x - y|
  double max_abs = 0.0;    // largest |x|
  int32_t exponent = 0;
};

// What one pair counts: |x - y| and |x|. A pair of which one is not finite counts nothing where
// both are the same infinity or both NaN, else as an infinite error.
struct ErrorPair {
  double error, magnitude;
};

// x and y are already scaled, so that the difference of finite values is finite.
QVLMEM_HD inline ErrorPair error_pair(double x, double y) {
  const double error = fabs(x - y);
  if (is_finite(error)) return {error, fabs(x)};
  const bool alike = x == y || (x != x && y != y);
  return {alike ? 0.0 : static_cast<double>(INFINITY), 0.0};
}

QVLMEM_HD inline void add_error_pair(double x, double y, ErrorSums* sums) {
  const ErrorPair pair = error_pair(x, y);
  sums->error_sq += pair.error * pair.error;
  sums->norm_sq += pair.magnitude * pair.magnitude;
  sums->max_error = pair.error > sums->max_error ? pair.error : sums->max_error;
  sums->max_abs = pair.magnitude > sums->max_abs ? pair.magnitude : sums->max_abs;
}

QVLMEM_HD inline void add_error_sums(const ErrorSums& part, ErrorSums* total) {
  total->max_error = part.max_error > total->max_error ? part.max_error : total->max_error;
  total->max_abs = part.max_abs > total->max_abs ? part.max_abs : total->max_abs;
  if (part.exponent == total->exponent) {
    total->error_sq += part.error_sq;
    total->norm_sq += part.norm_sq;
    return;
  }
  if (part.error_sq == 0.0 && part.norm_sq == 0.0) return;
  if (total->error_sq == 0.0 && total->norm_sq == 0.0) total->exponent = part.exponent;
  const int32_t exponent = part.exponent > total->exponent ? part.exponent : total->exponent;
  const int part_shift = 2 * (part.exponent - exponent);
  const int total_shift = 2 * (total->exponent - exponent);
  total->error_sq = ldexp(total->error_sq, total_shift) + ldexp(part.error_sq, part_shift);
  total->norm_sq = ldexp(total->norm_sq, total_shift) + ldexp(part.norm_sq, part_shift);
  total->exponent = exponent;
}

// The exponent that brings a run's largest finite magnitude, of this exponent, to about 1, so that
// it and its reciprocal are powers of two that float64 has.
QVLMEM_HD inline int32_t error_run_exponent(int exponent) {
  return exponent > 1022 ? 1022 : (exponent < -1022 ? -1022 : exponent);
}

// Gives the sums of values that were multiplied by 2^-exponent.
QVLMEM_HD inline void unscale_error_sums(int32_t exponent, ErrorSums* run) {
  if (exponent == 0) return;
  run->exponent = exponent;
  run->max_error *= power_of_two(exponent);
  run->max_abs *= power_of_two(exponent);
}

// error / norm, with 0/0 as 0 and error/0 as infinity.
QVLMEM_HD inline double error_ratio(double error, double norm) {
  return error == 0.0 ? 0.0 : error / norm;
}

// Raises *worst_sq to row's error_sq / norm_sq where that is larger; divides only then.
QVLMEM_HD inline void raise_worst_row(const ErrorSums& row, double* worst_sq) {
  if (row.error_sq > *worst_sq * row.norm_sq) *worst_sq = row.error_sq / row.norm_sq;
}

}  // namespace qvlmem
