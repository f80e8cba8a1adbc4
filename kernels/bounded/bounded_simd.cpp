// SPDX-License-Identifier: Apache-2.0
#include "kernels/bounded/bounded_simd.h"

#include "kernels/base/float64_bits.h"
#include "kernels/base/simd.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t N = kLanes32;
constexpr size_t kSums = 32;  // partial sums, whatever the ISA
constexpr size_t kVectors = kSums / N;

using DF64 = hn::ScalableTag<double>;
using VF64 = hn::Vec<DF64>;
constexpr size_t kHalves = N == 1 ? 1 : 2;  // vectors of float64 for one of float32

// hn::NearestInt without its care for what int32 cannot hold. REQUIRES: |v| < 2^31.
HWY_INLINE VI32 nearest_int(VF32 v) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(DI32(), static_cast<int32_t>(bounded_round(hn::GetLane(v))));
#elif HWY_TARGET == HWY_AVX2
  return VI32{_mm256_cvtps_epi32(v.raw)};
#else
  return VI32{_mm512_cvtps_epi32(v.raw)};
#endif
}

HWY_INLINE VU32 magnitude_bits(VF32 v) {
  return hn::And(hn::BitCast(DU32(), v), hn::Set(DU32(), 0x7fffffffu));
}

HWY_INLINE uint32_t largest_lane(const VU32* v) {
  VU32 top = v[0];
  for (size_t k = 1; k < kVectors; ++k) top = hn::Max(top, v[k]);
  return hn::GetLane(hn::MaxOfLanes(DU32(), top));
}

// 32 values and their partial sums as vectors.
struct Floats {
  VF32 v[kVectors];
};
struct Doubles {
  VF64 v[kVectors * kHalves];
};

HWY_INLINE void clear(Floats* f) {
  for (VF32& v : f->v) v = hn::Zero(DF32());
}
HWY_INLINE void clear(Doubles* d) {
  for (VF64& v : d->v) v = hn::Zero(DF64());
}

HWY_INLINE Doubles widen(const Floats& f) {
  Doubles d;
#if HWY_TARGET == HWY_SCALAR
  for (size_t k = 0; k < kVectors; ++k) d.v[k] = hn::PromoteTo(DF64(), f.v[k]);
#else
  const hn::Rebind<float, DF64> half;
  for (size_t k = 0; k < kVectors; ++k) {
    d.v[2 * k] = hn::PromoteTo(DF64(), hn::LowerHalf(half, f.v[k]));
    d.v[2 * k + 1] = hn::PromoteTo(DF64(), hn::UpperHalf(half, f.v[k]));
  }
#endif
  return d;
}

// By halves, so that the order of additions is the same for all lane counts. d: overwritten, for a
// copy of vectors would wait for their stores.
HWY_INLINE double total(Doubles* d) {
  for (size_t half = kVectors * kHalves / 2; half > 0; half /= 2) {
    for (size_t k = 0; k < half; ++k) d->v[k] = hn::Add(d->v[k], d->v[k + half]);
  }
  constexpr size_t kLanes64 = kSums / (kVectors * kHalves);
  HWY_ALIGN double lanes[kLanes64];
  hn::Store(d->v[0], DF64(), lanes);
  for (size_t half = kLanes64 / 2; half > 0; half /= 2) {
    for (size_t k = 0; k < half; ++k) lanes[k] += lanes[k + half];
  }
  return lanes[0];
}

// Calls body for each 32 values; the last short group comes filled up with zeros, which add nothing
// to a sum or a maximum.
template <class T, class Body>
HWY_INLINE void for_each_group(const T* x, size_t n, Body body) {
  size_t i = 0;
  for (; i + kSums <= n; i += kSums) body(x + i);
  if (i == n) return;
  T rest[kSums] = {};
  for (size_t k = 0; i + k < n; ++k) rest[k] = x[i + k];
  body(static_cast<const T*>(rest));
}

template <class T>
void moments_run(const T* x, size_t n, BoundedMoments* moments) {
  Doubles sums;
  clear(&sums);
  VU32 top[kVectors];
  for (VU32& t : top) t = hn::Zero(DU32());
  for_each_group(x, n, [&](const T* group) HWY_ATTR {
    Floats values;
    for (size_t k = 0; k < kVectors; ++k) {
      values.v[k] = load_f32(group + k * N);
      top[k] = hn::Max(top[k], magnitude_bits(values.v[k]));
    }
    const Doubles wide = widen(values);
    for (size_t k = 0; k < kVectors * kHalves; ++k) {
      sums.v[k] = hn::Add(sums.v[k], hn::Mul(wide.v[k], wide.v[k]));
    }
  });
  moments->sum_squares = total(&sums);
  moments->magnitude_bits = largest_lane(top);
}

// What a value of type T keeps of v, which is finite or infinite.
HWY_INLINE VF32 as_type(VF32 v, const float*) { return clamp_to_finite<float>(v); }

HWY_INLINE VF32 as_type(VF32 v, const BFloat16*) {
  const DU32 du;
  const VU32 bits = hn::BitCast(du, clamp_to_finite<BFloat16>(v));
  const VU32 odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const VU32 rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd);
  return hn::BitCast(DF32(), hn::And(rounded, hn::Set(du, 0xffff0000u)));
}

HWY_INLINE VF32 as_type(VF32 v, const Half*) {
  v = clamp_to_finite<Half>(v);
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(DF32(), to_float(to_half(hn::GetLane(v))));
#else
  const hn::Rebind<hwy::float16_t, DF32> dh;
  return hn::PromoteTo(DF32(), hn::DemoteTo(dh, v));
#endif
}

template <class T>
void error_run(const T* x, size_t n, const BoundedStep& step, BoundedError* error) {
  constexpr int kFlush = 16;  // groups whose squares are summed up in float32
  const DF32 df;
  const VF32 vstep = hn::Set(df, step.step), inverse = hn::Set(df, step.inverse);
  const VF32 lift = hn::Set(df, step.lift);
  Doubles sums;
  Floats part;
  clear(&sums);
  clear(&part);
  VU32 top[kVectors];
  for (VU32& t : top) t = hn::Zero(DU32());
  int groups = 0;
  const auto flush = [&]() HWY_ATTR {
    const Doubles wide = widen(part);
    for (size_t k = 0; k < kVectors * kHalves; ++k) sums.v[k] = hn::Add(sums.v[k], wide.v[k]);
    clear(&part);
    groups = 0;
  };
  for_each_group(x, n, [&](const T* group) HWY_ATTR {
    for (size_t k = 0; k < kVectors; ++k) {
      const VF32 v = load_f32(group + k * N);
      const VF32 q = hn::ConvertTo(df, nearest_int(hn::Mul(hn::Mul(v, lift), inverse)));
      const VF32 difference = hn::Sub(v, as_type(hn::Mul(q, vstep), x));
      top[k] = hn::Max(top[k], magnitude_bits(difference));
      // In steps, so that no square overflows or vanishes.
      const VF32 relative = hn::Mul(hn::Mul(difference, lift), inverse);
      part.v[k] = hn::Add(part.v[k], hn::Mul(relative, relative));
    }
    if (++groups == kFlush) flush();
  });
  flush();
  error->sum_squares = total(&sums) * step.step * step.step;
  error->max = bits_to_float(largest_lane(top));
}

template <class T>
bool quantize_run(const T* x, size_t n, const BoundedStep& step, int32_t* q) {
  const DF32 df;
  const VF32 inverse = hn::Set(df, step.inverse), lift = hn::Set(df, step.lift);
  const VF32 high = hn::Set(df, kBoundedMaxSteps), low = hn::Set(df, -kBoundedMaxSteps);
  VU32 top[kVectors];
  for (VU32& t : top) t = hn::Zero(DU32());
  size_t i = 0;
  for (; i + N <= n; i += N) {
    const VF32 steps = hn::Mul(hn::Mul(load_f32(x + i), lift), inverse);
    top[0] = hn::Max(top[0], magnitude_bits(steps));
    hn::StoreU(nearest_int(hn::Min(hn::Max(steps, low), high)), DI32(), q + i);
  }
  uint32_t largest = largest_lane(top);
  for (; i < n; ++i) {
    const float steps = to_float(x[i]) * step.lift * step.inverse;
    const uint32_t bits = float_to_bits(steps) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
    q[i] = bounded_quantize(to_float(x[i]), step);
  }
  return largest <= float_to_bits(kBoundedMaxSteps);
}

template <bool kStream, class T>
void dequantize_run(const int32_t* q, size_t n, float step, T* y) {
  const VF32 vstep = hn::Set(DF32(), step);
  const auto vector = [&](size_t at) HWY_ATTR {
    const VF32 steps = hn::ConvertTo(DF32(), hn::LoadU(DI32(), q + at));
    return clamp_to_finite<T>(hn::Mul(steps, vstep));
  };
  // Where the step is not finite there may be NaN, which goes the way of the last values.
  const size_t whole = is_finite(step) ? n : 0;
  size_t i = 0;
  if (stands_between<kStream>(y) && whole >= N) store_f32<kStream>(vector(0), y), i = N;
  for (; i + 2 * N <= whole; i += 2 * N) {
    store_two_f32<kStream, true>(vector(i), vector(i + N), y + i);
  }
  for (; i + N <= whole; i += N) store_f32<kStream>(vector(i), y + i);
  for (; i < n; ++i) y[i] = bounded_dequantize<T>(q[i], step);
}

// Calls body with x as a pointer to its element type.
template <class Body>
HWY_INLINE auto typed(const void* x, DType dtype, Body body) {
  switch (dtype) {
    case DType::kFloat16:
      return body(static_cast<const Half*>(x));
    case DType::kBFloat16:
      return body(static_cast<const BFloat16*>(x));
    default:
      return body(static_cast<const float*>(x));
  }
}

}  // namespace

void bounded_moments_run(const void* x, DType dtype, size_t n, BoundedMoments* moments) {
  typed(x, dtype, [&](const auto* values) HWY_ATTR { moments_run(values, n, moments); });
}

void bounded_error_run(const void* x, DType dtype, size_t n, float step, BoundedError* error) {
  typed(x, dtype,
        [&](const auto* values) HWY_ATTR { error_run(values, n, bounded_step(step), error); });
}

bool bounded_quantize_run(const void* x, DType dtype, size_t n, float step, int32_t* q) {
  return typed(x, dtype, [&](const auto* values) HWY_ATTR {
    return quantize_run(values, n, bounded_step(step), q);
  });
}

void bounded_dequantize_run(const int32_t* q, size_t n, float step, bool stream, void* y,
                            DType dtype) {
  const auto run = [&](auto* values) HWY_ATTR {
    if (stream && can_stream(values)) {
      for_each_page(values, n, [&](size_t i, size_t count) HWY_ATTR {
        dequantize_run<true>(q + i, count, step, values + i);
      });
    } else {
      dequantize_run<false>(q, n, step, values);
    }
  };
  switch (dtype) {
    case DType::kFloat16:
      return run(static_cast<Half*>(y));
    case DType::kBFloat16:
      return run(static_cast<BFloat16*>(y));
    default:
      return run(static_cast<float*>(y));
  }
}

QVLMEM_SIMD_END
