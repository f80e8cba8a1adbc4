// SPDX-License-Identifier: Apache-2.0
#include "kernels/svd/svd_simd.h"

#include "kernels/base/simd.h"

QVLMEM_SIMD_BEGIN
namespace {

// Partial sums: as many on every ISA (two AVX-512 or four AVX2 registers of float64), so that the
// sum is rounded alike.
constexpr size_t kSums = 16;

struct Sums {
  double sum[kSums] = {};
  uint32_t bits[kSums] = {};
};

HWY_INLINE void add(const float* values, size_t n, Sums* sums) {
  for (size_t k = 0; k < n; ++k) {
    const double value = static_cast<double>(values[k]);
    sums->sum[k] += value * value;
    const uint32_t magnitude = float_to_bits(values[k]) & 0x7fffffffu;
    sums->bits[k] = magnitude > sums->bits[k] ? magnitude : sums->bits[k];
  }
}

template <class T>
SvdScan scan(const T* x, size_t n) {
  Sums sums;
  alignas(64) float values[kSums];
  size_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (size_t k = 0; k < kSums; k += kLanes32) hn::Store(load_f32(x + i + k), DF32(), values + k);
    add(values, kSums, &sums);
  }
  for (size_t k = 0; i + k < n; ++k) values[k] = to_float(x[i + k]);
  add(values, n - i, &sums);
  SvdScan total;
  for (size_t k = 0; k < kSums; ++k) {
    total.sum_squares += sums.sum[k];
    if (sums.bits[k] > total.magnitude_bits) total.magnitude_bits = sums.bits[k];
  }
  return total;
}

}  // namespace

SvdScan svd_scan_run(const void* x, DType dtype, size_t n) {
  if (dtype == DType::kFloat32) return scan(static_cast<const float*>(x), n);
  if (dtype == DType::kFloat16) return scan(static_cast<const Half*>(x), n);
  return scan(static_cast<const BFloat16*>(x), n);
}

QVLMEM_SIMD_END
