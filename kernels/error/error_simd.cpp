// SPDX-License-Identifier: Apache-2.0
#include "kernels/error/error_simd.h"

#include "kernels/base/simd_f64.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t kLanes = kErrorLanes;
constexpr size_t kVectors = kLanes / kLanes64;

HWY_INLINE double to_double(float value) { return value; }
HWY_INLINE double to_double(double value) { return value; }
HWY_INLINE double to_double(Half value) { return to_float(value); }
HWY_INLINE double to_double(BFloat16 value) { return to_float(value); }

// kErrorLanes running sums and maxima (of squares: a root at the end costs less than an absolute
// value for each).
struct Accumulators {
  VF64 error_sq[kVectors], norm_sq[kVectors], max_error_sq[kVectors], max_sq[kVectors];

  HWY_INLINE Accumulators() {
    for (size_t v = 0; v < kVectors; ++v) {
      error_sq[v] = norm_sq[v] = max_error_sq[v] = max_sq[v] = hn::Zero(DF64());
    }
  }
};

// Adds kErrorLanes pairs. kCareful: some may not be finite.
template <bool kCareful, class T>
HWY_INLINE void add_lanes(const T* x, const T* y, VF64 factor, Accumulators* sums) {
  const DF64 df;
  for (size_t v = 0; v < kVectors; ++v) {
    VF64 a = load_f64(x + v * kLanes64);
    VF64 b = load_f64(y + v * kLanes64);
    if (sizeof(T) == 8) {
      a = hn::Mul(a, factor);
      b = hn::Mul(b, factor);
    }
    VF64 error = hn::Sub(a, b);
    if (kCareful) {
      const VF64 limit = hn::Set(df, kFloat64Max);
      const auto finite = hn::And(hn::Le(hn::Abs(a), limit), hn::Le(hn::Abs(b), limit));
      const auto both_nan = hn::And(hn::IsNaN(a), hn::IsNaN(b));
      const auto alike = hn::Or(hn::Eq(a, b), both_nan);
      const VF64 other = hn::IfThenZeroElse(alike, hn::Set(df, static_cast<double>(INFINITY)));
      error = hn::IfThenElse(finite, error, other);
      a = hn::IfThenElseZero(finite, a);
    }
    const VF64 error_sq = hn::Mul(error, error);
    const VF64 sq = hn::Mul(a, a);
    sums->error_sq[v] = hn::Add(sums->error_sq[v], error_sq);
    sums->norm_sq[v] = hn::Add(sums->norm_sq[v], sq);
    sums->max_error_sq[v] = hn::Max(sums->max_error_sq[v], error_sq);
    sums->max_sq[v] = hn::Max(sums->max_sq[v], sq);
  }
}

HWY_INLINE double sum_lanes(const VF64* vectors) {
  HWY_ALIGN double lanes[kLanes];
  for (size_t v = 0; v < kVectors; ++v) hn::Store(vectors[v], DF64(), lanes + v * kLanes64);
  for (size_t width = kLanes / 2; width > 0; width /= 2) {
    for (size_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  }
  return lanes[0];
}

HWY_INLINE double max_lanes(const VF64* vectors) {
  HWY_ALIGN double lanes[kLanes];
  for (size_t v = 0; v < kVectors; ++v) hn::Store(vectors[v], DF64(), lanes + v * kLanes64);
  double top = 0.0;
  for (size_t k = 0; k < kLanes; ++k) top = lanes[k] > top ? lanes[k] : top;
  return top;
}

template <bool kCareful, class T>
ErrorSums measure_run(const T* x, const T* y, size_t n, double factor) {
  const VF64 vfactor = hn::Set(DF64(), factor);
  Accumulators lanes;
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add_lanes<kCareful>(x + i, y + i, vfactor, &lanes);
  if (i < n) {
    T x_tail[kLanes] = {}, y_tail[kLanes] = {};
    for (size_t k = 0; i + k < n; ++k) {
      x_tail[k] = x[i + k];
      y_tail[k] = y[i + k];
    }
    add_lanes<kCareful>(x_tail, y_tail, vfactor, &lanes);
  }
  ErrorSums sums;
  sums.error_sq = sum_lanes(lanes.error_sq);
  sums.norm_sq = sum_lanes(lanes.norm_sq);
  sums.max_error = __builtin_sqrt(max_lanes(lanes.max_error_sq));
  sums.max_abs = __builtin_sqrt(max_lanes(lanes.max_sq));
  return sums;
}

// The exponent that brings a run's largest finite magnitude to about 1: 0 where no square can
// leave float64's range.
template <class T>
HWY_INLINE int32_t run_exponent(const T*, const T*, size_t) {
  return 0;
}
HWY_INLINE int32_t run_exponent(const double* x, const double* y, size_t n) {
  double top = 0.0;
  for (size_t i = 0; i < n; ++i) {
    const double a = __builtin_fabs(x[i]), b = __builtin_fabs(y[i]);
    if (a > top && a <= kFloat64Max) top = a;
    if (b > top && b <= kFloat64Max) top = b;
  }
  if (top == 0.0) return 0;
  return error_run_exponent(exponent_of(top));
}

// A row of less than kErrorLanes: lanes would cost more than they save.
template <class T>
HWY_INLINE ErrorSums measure_short_row(const T* x, const T* y, size_t cols) {
  const int32_t exponent = run_exponent(x, y, cols);
  const double factor = power_of_two(-exponent);
  ErrorSums row;
  for (size_t i = 0; i < cols; ++i) {
    add_error_pair(to_double(x[i]) * factor, to_double(y[i]) * factor, &row);
  }
  unscale_error_sums(exponent, &row);
  return row;
}

template <class T>
HWY_INLINE ErrorSums measure_row(const T* x, const T* y, size_t cols) {
  ErrorSums row;
  for (size_t begin = 0; begin < cols; begin += kErrorRun) {
    const size_t n = cols - begin < size_t{kErrorRun} ? cols - begin : size_t{kErrorRun};
    look_up_page_ahead(x + begin);
    look_up_page_ahead(y + begin);
    const int32_t exponent = run_exponent(x + begin, y + begin, n);
    const double factor = power_of_two(-exponent);
    ErrorSums run = measure_run<false>(x + begin, y + begin, n, factor);
    // Squares of finite values do not overflow here: an infinite or NaN sum tells of such values.
    if (!is_finite(run.error_sq) || !is_finite(run.norm_sq)) {
      run = measure_run<true>(x + begin, y + begin, n, factor);
    }
    unscale_error_sums(exponent, &run);
    add_error_sums(run, &row);
  }
  return row;
}

template <class T>
void measure_rows(const T* x, const T* y, size_t rows, size_t cols, ErrorPartial* partial) {
  ErrorPartial result;
  for (size_t r = 0; r < rows; ++r) {
    const ErrorSums row = cols < kLanes ? measure_short_row(x + r * cols, y + r * cols, cols)
                                        : measure_row(x + r * cols, y + r * cols, cols);
    raise_worst_row(row, &result.worst_row_sq);
    add_error_sums(row, &result.sums);
  }
  *partial = result;
}

}  // namespace

void error_rows(const void* x, const void* y, DType dtype, size_t rows, size_t cols,
                ErrorPartial* partial) {
  const auto run = [&](auto tag) HWY_ATTR {
    using T = decltype(tag);
    measure_rows(static_cast<const T*>(x), static_cast<const T*>(y), rows, cols, partial);
  };
  switch (dtype) {
    case DType::kFloat64:
      return run(double());
    case DType::kFloat16:
      return run(Half());
    case DType::kBFloat16:
      return run(BFloat16());
    default:
      return run(float());
  }
}

QVLMEM_SIMD_END
