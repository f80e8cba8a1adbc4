// SPDX-License-Identifier: Apache-2.0
#include "kernels/half/half_simd.h"

#include <hwy/cache_control.h>

#include "kernels/base/simd_f64.h"
#include "kernels/half/half_math.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t N = kLanes32;

// Largest finite magnitude so far, of float32 and 16-bit inputs (as integers: they order alike).
class Magnitude32 {
 public:
  HWY_INLINE hn::Mask<DF32> add(VF32 v) {
    const VI32 bits = hn::And(hn::BitCast(DI32(), v), hn::Set(DI32(), 0x7fffffff));
    const auto finite = hn::Lt(bits, hn::Set(DI32(), 0x7f800000));
    top_ = hn::Max(top_, hn::IfThenElseZero(finite, bits));
    return hn::RebindMask(DF32(), finite);
  }
  HWY_INLINE void add_one(float v) {
    const float magnitude = v < 0 ? -v : v;
    if (is_finite(v) && magnitude > tail_) tail_ = magnitude;
  }
  HWY_INLINE double result() const {
    HWY_ALIGN float lanes[N];
    hn::Store(hn::BitCast(DF32(), top_), DF32(), lanes);
    float top = tail_;
    for (size_t k = 0; k < N; ++k) top = lanes[k] > top ? lanes[k] : top;
    return top;
  }

 private:
  VI32 top_ = hn::Zero(DI32());
  float tail_ = 0.0f;
};

class Magnitude64 {
 public:
  HWY_INLINE hn::Mask<DF64> add(VF64 v) {
    const VF64 magnitude = hn::Abs(v);
    const auto finite = hn::Le(magnitude, hn::Set(DF64(), kFloat64Max));
    top_ = hn::Max(top_, hn::IfThenElseZero(finite, magnitude));
    return finite;
  }
  HWY_INLINE void add_one(double v) {
    const double magnitude = v < 0 ? -v : v;
    if (is_finite(v) && magnitude > tail_) tail_ = magnitude;
  }
  HWY_INLINE double result() const {
    HWY_ALIGN double lanes[kLanes64];
    hn::Store(top_, DF64(), lanes);
    double top = tail_;
    for (size_t k = 0; k < kLanes64; ++k) top = lanes[k] > top ? lanes[k] : top;
    return top;
  }

 private:
  VF64 top_ = hn::Zero(DF64());
  double tail_ = 0.0;
};

template <class T>
double magnitude_run(const T* x, size_t n) {
  Magnitude32 magnitude;
  size_t i = 0;
  for (; i + N <= n; i += N) magnitude.add(load_f32(x + i));
  for (; i < n; ++i) magnitude.add_one(to_float(x[i]));
  return magnitude.result();
}

double magnitude_run(const double* x, size_t n) {
  Magnitude64 magnitude;
  size_t i = 0;
  for (; i + kLanes64 <= n; i += kLanes64) magnitude.add(load_f64(x + i));
  for (; i < n; ++i) magnitude.add_one(x[i]);
  return magnitude.result();
}

template <bool kStream, class T>
HWY_INLINE void encode_run(const T* x, size_t n, float inverse, Half* half,
                           Magnitude32* magnitude) {
  const VF32 vinverse = hn::Set(DF32(), inverse);
  size_t i = 0;
  for (; i + N <= n; i += N) {
    const VF32 v = load_f32(x + i);
    const auto finite = magnitude->add(v);
    store_f32<kStream>(hn::IfThenElse(finite, hn::Mul(v, vinverse), v), half + i);
  }
  for (; i < n; ++i) {
    magnitude->add_one(to_float(x[i]));
    half[i] = half_encode_value(to_float(x[i]), inverse);
  }
}

#if HWY_TARGET != HWY_SCALAR
// What to_half(double) gives, as float32: adding 2^52 of a half's last place leaves the value
// rounded to that place.
HWY_INLINE VF32Half round_to_half(VF64 v) {
  const VF64 magnitude = hn::Abs(v);
  const VF64 floor = hn::Max(magnitude, hn::Set(DF64(), 0x1p-14));
  const auto exponent = hn::And(hn::BitCast(DU64(), floor), hn::Set(DU64(), 0x7ff0000000000000u));
  const VF64 magic = hn::Mul(hn::BitCast(DF64(), exponent), hn::Set(DF64(), 0x1p42));
  const VF64 rounded = hn::Sub(hn::Add(magnitude, magic), magic);
  const auto fits = hn::Lt(magnitude, hn::Set(DF64(), 65536.0));
  return hn::DemoteTo(DF32Half(), hn::CopySign(hn::IfThenElse(fits, rounded, magnitude), v));
}
#endif

template <bool kStream>
HWY_INLINE void encode_run(const double* x, size_t n, double inverse, Half* half,
                           Magnitude64* magnitude) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const VF64 vinverse = hn::Set(DF64(), inverse);
  for (; i + N <= n; i += N) {
    VF64 v[2] = {load_f64(x + i), load_f64(x + i + kLanes64)};
    for (VF64& part : v) {
      const auto finite = magnitude->add(part);
      part = hn::IfThenElse(finite, hn::Mul(part, vinverse), part);
    }
    const VF32 both = hn::Combine(DF32(), round_to_half(v[1]), round_to_half(v[0]));
    store_f32<kStream>(both, half + i);
  }
#endif
  for (; i < n; ++i) {
    magnitude->add_one(x[i]);
    half[i] = half_encode_value(x[i], inverse);
  }
}

// kPlain: a half's largest value times the scale is one of T's, and the scale is above 0, so that
// nothing needs a limit, and infinities and NaN become themselves.
template <bool kStream, bool kPlain, class T>
HWY_INLINE void decode_run(const Half* half, size_t n, float scale, T* y) {
  const DF32 df;
  const VF32 vscale = hn::Set(df, scale);
  const VF32 limit = hn::Set(df, HalfOutput<T>::kLimit);
  const auto vector = [&](size_t at) HWY_ATTR {
    const VF32 v = load_f32(half + at);
    const VF32 product = hn::Mul(v, vscale);
    if (kPlain) return product;
    const auto beyond = hn::Gt(hn::Abs(product), limit);
    const VF32 finite = hn::IfThenElse(beyond, hn::CopySign(limit, product), product);
    const auto keep = hn::Le(hn::Abs(v), hn::Set(df, kFloat16Max));
    return hn::IfThenElse(keep, finite, v);
  };
  size_t i = 0;
  if (stands_between<kStream>(y) && n >= N) store_f32<kStream>(vector(0), y), i = N;
  for (; i + 2 * N <= n; i += 2 * N) {
    store_two_f32<kStream, false>(vector(i), vector(i + N), y + i);
  }
  for (; i + N <= n; i += N) store_f32<kStream>(vector(i), y + i);
  for (; i < n; ++i) y[i] = half_decode_value<T>(half[i], scale);
}

template <bool kStream, class T>
HWY_INLINE void decode_run(const Half* half, size_t n, float scale, T* y) {
  // Scalar code may multiply a NaN to other bits.
  if (HWY_TARGET != HWY_SCALAR && scale > 0.0f && scale * kFloat16Max <= HalfOutput<T>::kLimit) {
    decode_run<kStream, true>(half, n, scale, y);
  } else {
    decode_run<kStream, false>(half, n, scale, y);
  }
}

template <bool kStream>
HWY_INLINE void decode_run(const Half* half, size_t n, double scale, double* y) {
  const DF64 df;
  const VF64 vscale = hn::Set(df, scale);
  const VF64 limit = hn::Set(df, kFloat64Max);
  size_t i = 0;
  for (; i + kLanes64 <= n; i += kLanes64) {
    const VF64 v = load_f64(half + i);
    const VF64 product = hn::Mul(v, vscale);
    const auto beyond = hn::Gt(hn::Abs(product), limit);
    const VF64 finite = hn::IfThenElse(beyond, hn::CopySign(limit, product), product);
    const auto keep = hn::Le(hn::Abs(v), hn::Set(df, double{kFloat16Max}));
    const VF64 result = hn::IfThenElse(keep, finite, v);
    if (kStream) {
      hn::Stream(result, df, y + i);
    } else {
      hn::StoreU(result, df, y + i);
    }
  }
  for (; i < n; ++i) y[i] = half_decode_value<double>(half[i], scale);
}

// A scale outside float32 (of a float64 tensor, decoded into something narrower): rare.
template <class T>
void decode_wide_scale(const Half* half, size_t n, double scale, T* y) {
  for (size_t i = 0; i < n; ++i) y[i] = half_decode_value<T>(half[i], scale);
}

}  // namespace

double half_magnitude_run(const void* x, DType dtype, size_t n) {
  switch (dtype) {
    case DType::kFloat64:
      return magnitude_run(static_cast<const double*>(x), n);
    case DType::kBFloat16:
      return magnitude_run(static_cast<const BFloat16*>(x), n);
    default:
      return magnitude_run(static_cast<const float*>(x), n);
  }
}

double half_encode_run(const void* x, DType dtype, size_t n, double inverse, bool stream,
                       Half* half) {
  stream = stream && can_stream(half);
  const auto run = [&](const auto* values, auto factor, auto magnitude) HWY_ATTR {
    if (stream) {
      for_each_page(values, n, [&](size_t i, size_t count) HWY_ATTR {
        look_up_page_ahead(half + i);
        encode_run<true>(values + i, count, factor, half + i, &magnitude);
      });
      hwy::FlushStream();
    } else {
      encode_run<false>(values, n, factor, half, &magnitude);
    }
    return magnitude.result();
  };
  switch (dtype) {
    case DType::kFloat64:
      return run(static_cast<const double*>(x), inverse, Magnitude64());
    case DType::kBFloat16:
      return run(static_cast<const BFloat16*>(x), static_cast<float>(inverse), Magnitude32());
    default:
      return run(static_cast<const float*>(x), static_cast<float>(inverse), Magnitude32());
  }
}

void half_decode_run(const Half* half, size_t n, double scale, bool stream, void* y, DType dtype) {
  const bool narrow_scale = double{static_cast<float>(scale)} == scale;
  const auto run = [&](auto* values, auto factor) HWY_ATTR {
    if (stream && can_stream(values)) {
      for_each_page(values, n, [&](size_t i, size_t count) HWY_ATTR {
        decode_run<true>(half + i, count, factor, values + i);
      });
      hwy::FlushStream();
    } else {
      decode_run<false>(half, n, factor, values);
    }
  };
  const auto run_narrow = [&](auto* values) HWY_ATTR {
    if (narrow_scale) {
      run(values, static_cast<float>(scale));
    } else {
      decode_wide_scale(half, n, scale, values);
    }
  };
  switch (dtype) {
    case DType::kFloat64:
      return run(static_cast<double*>(y), scale);
    case DType::kFloat16:
      return run_narrow(static_cast<Half*>(y));
    case DType::kBFloat16:
      return run_narrow(static_cast<BFloat16*>(y));
    default:
      return run_narrow(static_cast<float*>(y));
  }
}

QVLMEM_SIMD_END
