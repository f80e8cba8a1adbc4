// SPDX-License-Identifier: Apache-2.0
// Highway (static dispatch) for the *_simd.cpp sources: one source, compiled once for each ISA into
// the namespace that QVLMEM_ISA_NAMESPACE names. Such a source keeps helpers in an unnamed
// namespace and uses no std templates: an inline function emitted here would be a weak symbol
// compiled for AVX-512, and the linker might choose it for everybody (a test looks for such
// symbols).
//
// The portable build is Highway's scalar target: one lane, so BitCast between lane widths and
// anything else that needs several lanes must stand under #if HWY_TARGET != HWY_SCALAR.
#pragma once

#ifndef QVLMEM_ISA_NAMESPACE
#error "kernels/base/simd.h is for *_simd.cpp sources, which the build compiles once for each ISA"
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/base/dtype.h"
#include "kernels/base/float_bits.h"

// clang-format off
#define QVLMEM_SIMD_BEGIN HWY_BEFORE_NAMESPACE(); namespace qvlmem { namespace QVLMEM_ISA_NAMESPACE {
#define QVLMEM_SIMD_END } } HWY_AFTER_NAMESPACE();
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace qvlmem {
namespace QVLMEM_ISA_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF32 = hn::ScalableTag<float>;
using DI32 = hn::ScalableTag<int32_t>;
using DU32 = hn::ScalableTag<uint32_t>;
using DU16Half = hn::Rebind<uint16_t, DF32>;  // as many 16-bit lanes as there are 32-bit lanes
using VF32 = hn::Vec<DF32>;
using VI32 = hn::Vec<DI32>;
using VU32 = hn::Vec<DU32>;

constexpr size_t kLanes32 = hn::MaxLanes(DF32());

// ---- Loads as float32 (unaligned) ----

HWY_INLINE VF32 load_f32(const float* p) { return hn::LoadU(DF32(), p); }

HWY_INLINE VF32 load_f32(const BFloat16* p) {
  const auto bits = hn::LoadU(DU16Half(), &p->bits);
  return hn::BitCast(DF32(), hn::ShiftLeft<16>(hn::PromoteTo(DU32(), bits)));
}

HWY_INLINE VF32 load_f32(const Half* p) {
#if HWY_TARGET == HWY_SCALAR
  // Highway 1.0.3's scalar conversion does not keep NaN payloads as F16C does.
  return hn::Set(DF32(), to_float(*p));
#else
  const hn::Rebind<hwy::float16_t, DF32> dh;
  return hn::PromoteTo(DF32(), hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(p)));
#endif
}

// ---- Stores from float32, rounding to nearest even; infinities and NaN pass ----

template <bool kStream>
HWY_INLINE void store_f32(VF32 v, float* p) {
  if (kStream) {
    hn::Stream(v, DF32(), p);
  } else {
    hn::StoreU(v, DF32(), p);
  }
}

// A bfloat16's bits in 32-bit lanes. kNoNan: no lane is NaN.
template <bool kNoNan>
HWY_INLINE VU32 to_bfloat16_bits(VF32 v) {
  const DU32 du;
  const VU32 bits = hn::BitCast(du, v);
  const VU32 top = hn::ShiftRight<16>(bits);
  const VU32 odd = hn::And(top, hn::Set(du, 1u));
  const VU32 rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd));
  if (kNoNan) return rounded;
  const VU32 magnitude = hn::And(bits, hn::Set(du, 0x7fffffffu));
  const VU32 quiet = hn::Or(top, hn::Set(du, 0x0040u));
  const auto is_nan = hn::Gt(hn::BitCast(DI32(), magnitude), hn::Set(DI32(), 0x7f800000));
  return hn::IfThenElse(hn::RebindMask(du, is_nan), quiet, rounded);
}

template <bool kStream>
HWY_INLINE void store_f32(VF32 v, BFloat16* p) {
  const auto bits = hn::TruncateTo(DU16Half(), to_bfloat16_bits<false>(v));
  if (kStream) {
    hn::Stream(bits, DU16Half(), &p->bits);
  } else {
    hn::StoreU(bits, DU16Half(), &p->bits);
  }
}

template <bool kStream>
HWY_INLINE void store_f32(VF32 v, Half* p) {
#if HWY_TARGET == HWY_SCALAR
  *p = to_half(hn::GetLane(v));
#else
  const hn::Rebind<hwy::float16_t, DF32> dh;
  const auto bits = hn::BitCast(DU16Half(), hn::DemoteTo(dh, v));
  if (kStream) {
    hn::Stream(bits, DU16Half(), &p->bits);
  } else {
    hn::StoreU(bits, DU16Half(), &p->bits);
  }
#endif
}

// Whether two vectors are narrowed to T together.
template <class T>
constexpr bool kNarrowsTwo = hwy::IsSame<T, BFloat16>() && kLanes32 > 1;

// Two vectors of values, a's first. kNoNan: none is NaN.
template <bool kStream, bool kNoNan, class T>
HWY_INLINE void store_two_f32(VF32 a, VF32 b, T* p) {
  store_f32<kStream>(a, p);
  store_f32<kStream>(b, p + kLanes32);
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
// Narrowed together: one packing, one permutation and one store for both.
template <bool kStream, bool kNoNan>
HWY_INLINE void store_two_f32(VF32 a, VF32 b, BFloat16* p) {
  const VU32 low = to_bfloat16_bits<kNoNan>(a), high = to_bfloat16_bits<kNoNan>(b);
  const hn::ScalableTag<uint16_t> d;
#if HWY_TARGET == HWY_AVX2
  const __m256i both = _mm256_packus_epi32(low.raw, high.raw);
  const hn::Vec<decltype(d)> bits{_mm256_permute4x64_epi64(both, 0xd8)};
#else
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  const __m512i both = _mm512_packus_epi32(low.raw, high.raw);
  const hn::Vec<decltype(d)> bits{_mm512_permutexvar_epi64(order, both)};
#endif
  if (kStream) {
    hn::Stream(bits, d, &p->bits);
  } else {
    hn::StoreU(bits, d, &p->bits);
  }
}
#endif

// Whether store_f32 can stream to p, or whole vectors of doubles can be.
template <class T>
HWY_INLINE bool can_stream(const T* p) {
  constexpr size_t kBytes = sizeof(T) < sizeof(float) ? sizeof(T) : sizeof(float);
  return reinterpret_cast<uintptr_t>(p) % (kLanes32 * kBytes) == 0;
}

// Whether p, where store_f32 streams to, is between two places where store_two_f32 does.
template <bool kStream, class T>
HWY_INLINE bool stands_between(const T* p) {
  return kStream && kNarrowsTwo<T> &&
         reinterpret_cast<uintptr_t>(p) % (2 * kLanes32 * sizeof(T)) != 0;
}

constexpr size_t kPageBytes = 4096;

// Asks for the first line two pages after p, and so for the page's translation, before anything is
// read or streamed there. A streaming store that has to wait for a translation holds up all that
// follow, and reading ahead waits for it as well: where memory has small pages decoders took up to
// twice as long, encoders up to a tenth longer (measured on Zen 5). To ask again costs next to
// nothing.
HWY_INLINE void look_up_page_ahead(const void* p) {
  if (kLanes32 == 1) return;  // too slow to wait for memory
  const uintptr_t page = (reinterpret_cast<uintptr_t>(p) / kPageBytes + 2) * kPageBytes;
  hwy::Prefetch(reinterpret_cast<const uint8_t*>(page));
}

// Calls body(first, count) for y[0, n), a page's worth at a time, having asked for one ahead.
template <class T, class Body>
HWY_INLINE void for_each_page(const T* y, size_t n, Body body) {
  constexpr size_t kPage = kPageBytes / sizeof(T);  // elements
  for (size_t i = 0; i < n; i += kPage) {
    look_up_page_ahead(y + i);
    body(i, HWY_MIN(kPage, n - i));
  }
}

// REQUIRES: not NaN, which scalar code keeps and this does not.
template <class T>
HWY_INLINE VF32 clamp_to_finite(VF32 v) {
  const float limit =
      sizeof(T) == 4 ? kFloat32Max : (hwy::IsSame<T, Half>() ? kFloat16Max : kBFloat16Max);
  return hn::Min(hn::Max(v, hn::Set(DF32(), -limit)), hn::Set(DF32(), limit));
}

}  // namespace
}  // namespace QVLMEM_ISA_NAMESPACE
}  // namespace qvlmem
HWY_AFTER_NAMESPACE();
