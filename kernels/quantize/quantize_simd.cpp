// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantize/quantize_simd.h"

#include "kernels/base/simd.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t N = kLanes32;

// Four vectors of int32 within int8's range become 4 * N bytes, in order.
template <bool kStream>
HWY_INLINE void store_as_int8(VI32 a, VI32 b, VI32 c, VI32 d, int8_t* out) {
#if HWY_TARGET == HWY_AVX2
  const __m256i low = _mm256_packs_epi32(a.raw, b.raw);
  const __m256i high = _mm256_packs_epi32(c.raw, d.raw);
  const __m256i lanes = _mm256_packs_epi16(low, high);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i bytes = _mm256_permutevar8x32_epi32(lanes, order);
  if (kStream) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(out), bytes);
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bytes);
  }
#elif HWY_TARGET == HWY_AVX3
  const __m512i low = _mm512_packs_epi32(a.raw, b.raw);
  const __m512i high = _mm512_packs_epi32(c.raw, d.raw);
  const __m512i lanes = _mm512_packs_epi16(low, high);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_permutexvar_epi32(order, lanes);
  if (kStream) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out), bytes);
  } else {
    _mm512_storeu_si512(out, bytes);
  }
#else
  const hn::Rebind<int8_t, DI32> d8;
  hn::StoreU(hn::DemoteTo(d8, a), d8, out);
  hn::StoreU(hn::DemoteTo(d8, b), d8, out + N);
  hn::StoreU(hn::DemoteTo(d8, c), d8, out + 2 * N);
  hn::StoreU(hn::DemoteTo(d8, d), d8, out + 3 * N);
#endif
}

template <class T>
void range_run(const T* x, size_t n, QuantizeRange* range) {
  const DF32 df;
  const DU32 du;
  const VU32 magnitude_mask = hn::Set(du, 0x7fffffffu);
  VF32 low0 = hn::Zero(df), low1 = low0, high0 = low0, high1 = low0;
  VU32 top0 = hn::Zero(du), top1 = top0;
  size_t i = 0;
  for (; i + 2 * N <= n; i += 2 * N) {
    const VF32 a = load_f32(x + i);
    const VF32 b = load_f32(x + i + N);
    low0 = hn::Min(low0, a);
    low1 = hn::Min(low1, b);
    high0 = hn::Max(high0, a);
    high1 = hn::Max(high1, b);
    top0 = hn::Max(top0, hn::And(hn::BitCast(du, a), magnitude_mask));
    top1 = hn::Max(top1, hn::And(hn::BitCast(du, b), magnitude_mask));
  }
  HWY_ALIGN float low[N], high[N];
  HWY_ALIGN uint32_t top[N];
  hn::Store(hn::Min(low0, low1), df, low);
  hn::Store(hn::Max(high0, high1), df, high);
  hn::Store(hn::Max(top0, top1), du, top);
  QuantizeRange r;
  for (size_t k = 0; k < N; ++k) {
    r.min = low[k] < r.min ? low[k] : r.min;
    r.max = high[k] > r.max ? high[k] : r.max;
    r.magnitude_bits = top[k] > r.magnitude_bits ? top[k] : r.magnitude_bits;
  }
  for (; i < n; ++i) {
    const float value = to_float(x[i]);
    const uint32_t magnitude = float_to_bits(value) & 0x7fffffffu;
    r.min = value < r.min ? value : r.min;
    r.max = value > r.max ? value : r.max;
    r.magnitude_bits = magnitude > r.magnitude_bits ? magnitude : r.magnitude_bits;
  }
  *range = r;
}

HWY_INLINE VI32 round_steps(VF32 v, VF32 inverse, VI32 zero, VI32 low, VI32 high) {
  const VI32 q = hn::Add(hn::NearestInt(hn::Mul(v, inverse)), zero);
  return hn::Min(hn::Max(q, low), high);
}

template <bool kStream, class T>
void nearest_run(const T* x, size_t n, const QuantizeGroup& group, int32_t low, int32_t high,
                 int8_t* q) {
  const VF32 inverse = hn::Set(DF32(), group.inverse);
  const VI32 zero = hn::Set(DI32(), group.zero_point);
  const VI32 vlow = hn::Set(DI32(), low), vhigh = hn::Set(DI32(), high);
  size_t i = 0;
  for (; i + 4 * N <= n; i += 4 * N) {
    const VI32 a = round_steps(load_f32(x + i), inverse, zero, vlow, vhigh);
    const VI32 b = round_steps(load_f32(x + i + N), inverse, zero, vlow, vhigh);
    const VI32 c = round_steps(load_f32(x + i + 2 * N), inverse, zero, vlow, vhigh);
    const VI32 d = round_steps(load_f32(x + i + 3 * N), inverse, zero, vlow, vhigh);
    store_as_int8<kStream>(a, b, c, d, q + i);
  }
  for (; i < n; ++i) q[i] = static_cast<int8_t>(quantize_nearest(to_float(x[i]), group, low, high));
}

template <class T>
void stochastic_run(const T* x, size_t n, const QuantizeGroup& group, int32_t low, int32_t high,
                    uint64_t seed, uint64_t index, int8_t* q) {
  for (size_t i = 0; i < n;) {
    const PhiloxBlock block = philox4x32(seed, (index + i) >> 2);
    do {
      const float uniform = philox_fraction(block.word[(index + i) & 3]);
      q[i] = static_cast<int8_t>(quantize_stochastic(to_float(x[i]), group, low, high, uniform));
      ++i;
    } while (i < n && ((index + i) & 3) != 0);
  }
}

template <bool kStream, class T>
void decode_run(const int8_t* q, size_t n, float scale, int32_t zero_point, T* y) {
  const VF32 vscale = hn::Set(DF32(), scale);
  const VI32 zero = hn::Set(DI32(), zero_point);
  const hn::Rebind<int8_t, DI32> d8;
  size_t i = 0;
  for (; i + N <= n; i += N) {
    const VI32 steps = hn::Sub(hn::PromoteTo(DI32(), hn::LoadU(d8, q + i)), zero);
    const VF32 value = hn::Mul(hn::ConvertTo(DF32(), steps), vscale);
    store_f32<kStream>(clamp_to_finite<T>(value), y + i);
  }
  for (; i < n; ++i) y[i] = from_float_saturating<T>(dequantize_value(q[i], scale, zero_point));
}

}  // namespace

void quantize_range_run(const void* x, DType dtype, size_t n, QuantizeRange* range) {
  switch (dtype) {
    case DType::kFloat16:
      return range_run(static_cast<const Half*>(x), n, range);
    case DType::kBFloat16:
      return range_run(static_cast<const BFloat16*>(x), n, range);
    default:
      return range_run(static_cast<const float*>(x), n, range);
  }
}

void quantize_nearest_run(const void* x, DType dtype, size_t n, QuantizeGroup group, int32_t low,
                          int32_t high, bool stream, int8_t* q) {
  stream = stream && (reinterpret_cast<uintptr_t>(q) & (4 * N - 1)) == 0;
  const auto run = [&](const auto* values) HWY_ATTR {
    if (stream) {
      nearest_run<true>(values, n, group, low, high, q);
    } else {
      nearest_run<false>(values, n, group, low, high, q);
    }
  };
  switch (dtype) {
    case DType::kFloat16:
      return run(static_cast<const Half*>(x));
    case DType::kBFloat16:
      return run(static_cast<const BFloat16*>(x));
    default:
      return run(static_cast<const float*>(x));
  }
}

void quantize_stochastic_run(const void* x, DType dtype, size_t n, QuantizeGroup group, int32_t low,
                             int32_t high, uint64_t seed, uint64_t index, int8_t* q) {
  switch (dtype) {
    case DType::kFloat16:
      return stochastic_run(static_cast<const Half*>(x), n, group, low, high, seed, index, q);
    case DType::kBFloat16:
      return stochastic_run(static_cast<const BFloat16*>(x), n, group, low, high, seed, index, q);
    default:
      return stochastic_run(static_cast<const float*>(x), n, group, low, high, seed, index, q);
  }
}

void pack_nibbles(const int8_t* q, size_t n, uint8_t* bytes) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<uint16_t> d16;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const size_t pairs = hn::Lanes(d16);
  for (; i + 2 * pairs <= n; i += 2 * pairs) {
    const auto pair = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(q + i));
    const auto low = hn::And(pair, hn::Set(d16, uint16_t{0x0f}));
    const auto high = hn::And(hn::ShiftRight<4>(pair), hn::Set(d16, uint16_t{0xf0}));
    const auto both = hn::BitCast(hn::RebindToSigned<decltype(d16)>(), hn::Or(low, high));
    hn::StoreU(hn::DemoteTo(d8, both), d8, bytes + i / 2);
  }
#endif
  for (; i < n; i += 2) {
    const int low = q[i] & 0x0f;
    const int high = i + 1 < n ? (q[i + 1] & 0x0f) << 4 : 0;
    bytes[i / 2] = static_cast<uint8_t>(low | high);
  }
}

void unpack_nibbles(const uint8_t* bytes, size_t n, bool sign_extend, int8_t* q) {
  const int8_t bias = sign_extend ? 8 : 0;  // (v ^ 8) - 8 extends the sign of a nibble
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<uint16_t> d16;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const hn::ScalableTag<int8_t> d8full;
  const size_t pairs = hn::Lanes(d16);
  const auto vbias = hn::Set(d8full, bias);
  for (; i + 2 * pairs <= n; i += 2 * pairs) {
    const auto packed = hn::PromoteTo(d16, hn::LoadU(d8, bytes + i / 2));
    const auto low = hn::And(packed, hn::Set(d16, uint16_t{0x000f}));
    const auto high = hn::And(hn::ShiftLeft<4>(packed), hn::Set(d16, uint16_t{0x0f00}));
    const auto both = hn::BitCast(d8full, hn::Or(low, high));
    hn::StoreU(hn::Sub(hn::Xor(both, vbias), vbias), d8full, q + i);
  }
#endif
  for (; i < n; i += 2) {
    const int byte = bytes[i / 2];
    q[i] = static_cast<int8_t>(((byte & 0x0f) ^ bias) - bias);
    if (i + 1 < n) q[i + 1] = static_cast<int8_t>(((byte >> 4) ^ bias) - bias);
  }
}

void dequantize_run(const int8_t* q, size_t n, float scale, int32_t zero_point, bool stream,
                    void* y, DType dtype) {
  const auto run = [&](auto* values) HWY_ATTR {
    if (stream && can_stream(values)) {
      decode_run<true>(q, n, scale, zero_point, values);
    } else {
      decode_run<false>(q, n, scale, zero_point, values);
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
