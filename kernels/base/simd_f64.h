// SPDX-License-Identifier: Apache-2.0
// What kernels/base/simd.h has for float32, for sources that compute in float64.
#pragma once

#include "kernels/base/simd.h"

HWY_BEFORE_NAMESPACE();
namespace qvlmem {
namespace QVLMEM_ISA_NAMESPACE {
namespace {

using DF64 = hn::ScalableTag<double>;
using DU64 = hn::ScalableTag<uint64_t>;
using DF32Half = hn::Rebind<float, DF64>;  // as many float32 lanes as there are float64 lanes
using VF64 = hn::Vec<DF64>;
using VF32Half = hn::Vec<DF32Half>;

constexpr size_t kLanes64 = hn::MaxLanes(DF64());

// ---- Loads as float64 (unaligned); exact for every type ----

HWY_INLINE VF64 load_f64(const double* p) { return hn::LoadU(DF64(), p); }

HWY_INLINE VF64 load_f64(const float* p) { return hn::PromoteTo(DF64(), hn::LoadU(DF32Half(), p)); }

HWY_INLINE VF64 load_f64(const BFloat16* p) {
  const hn::Rebind<uint32_t, DF64> du32;
  const hn::Rebind<uint16_t, DF64> du16;
  const auto bits = hn::ShiftLeft<16>(hn::PromoteTo(du32, hn::LoadU(du16, &p->bits)));
  return hn::PromoteTo(DF64(), hn::BitCast(DF32Half(), bits));
}

HWY_INLINE VF64 load_f64(const Half* p) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(DF64(), double{to_float(*p)});
#else
  const hn::Rebind<hwy::float16_t, DF64> dh;
  const auto half = hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(p));
  return hn::PromoteTo(DF64(), hn::PromoteTo(DF32Half(), half));
#endif
}

}  // namespace
}  // namespace QVLMEM_ISA_NAMESPACE
}  // namespace qvlmem
HWY_AFTER_NAMESPACE();
