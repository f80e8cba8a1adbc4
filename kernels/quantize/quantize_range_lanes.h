// SPDX-License-Identifier: Apache-2.0
// The range of a run of values, and the scales of several groups at once.
#pragma once

#include "kernels/quantize/quantize_lanes.h"

QVLMEM_SIMD_BEGIN
namespace {

// A range lane by lane. Symmetric scales need magnitudes alone: half the work.
template <bool kSymmetric>
struct LaneRange {
  VU32 magnitude = hn::Zero(DU32());
  VF32 min = hn::Zero(DF32()), max = hn::Zero(DF32());

  HWY_INLINE void widen(VF32 v) {
    const VU32 bits = hn::And(hn::BitCast(DU32(), v), hn::Set(DU32(), 0x7fffffffu));
    magnitude = hn::Max(magnitude, bits);
    if (kSymmetric) return;
    min = hn::Min(min, v);
    max = hn::Max(max, v);
  }

  HWY_INLINE void widen(const LaneRange& other) {
    magnitude = hn::Max(magnitude, other.magnitude);
    if (kSymmetric) return;
    min = hn::Min(min, other.min);
    max = hn::Max(max, other.max);
  }

  HWY_INLINE QuantizeRange across() const {
    QuantizeRange range;
    range.magnitude_bits = hn::GetLane(hn::MaxOfLanes(DU32(), magnitude));
    if (kSymmetric) return range;
    range.min = hn::GetLane(hn::MinOfLanes(DF32(), min));
    range.max = hn::GetLane(hn::MaxOfLanes(DF32(), max));
    return range;
  }
};

// The last vectors of a run overlap those before them, where it has as many: no value counts twice
// in a range.
template <bool kSymmetric, Ahead kAhead, class T>
HWY_INLINE LaneRange<kSymmetric> range_run(const T* x, size_t n) {
  LaneRange<kSymmetric> a, b, c, d;
  const T* const ahead = address_ahead(x, ahead_bytes(x, 0));
  size_t i = 0;
  for (; i + 4 * N <= n; i += 4 * N) {
    read_ahead<kAhead, 4>(ahead + i);
    a.widen(load_f32(x + i));
    b.widen(load_f32(x + i + N));
    c.widen(load_f32(x + i + 2 * N));
    d.widen(load_f32(x + i + 3 * N));
  }
  if (i < n) {
    if (n >= N) {
      for (; i + N <= n; i += N) a.widen(load_f32(x + i));
      b.widen(load_f32(x + n - N));
    } else {
      for (; i < n; ++i) a.widen(hn::Set(DF32(), to_float(x[i])));
    }
  }
  a.widen(b);
  c.widen(d);
  a.widen(c);
  return a;
}

constexpr int64_t kBatchGroups = 16;
// Columns that are ranged at a time: few enough that reading goes on meanwhile, and while the
// divisions wait; enough that this is seldom.
constexpr int64_t kBatchCols = 1024;

// Groups of `group` columns in a batch, at most.
HWY_INLINE int64_t quantize_batch_groups(int64_t group) {
  const int64_t fit = kBatchCols / group;
  return fit < 1 ? 1 : (fit < kBatchGroups ? fit : kBatchGroups);
}

// Groups whose ranges are known before any is encoded: one vector division serves many.
struct GroupBatch {
  size_t count = 0;
  HWY_ALIGN uint32_t magnitude_bits[kBatchGroups] = {};
  HWY_ALIGN float min[kBatchGroups] = {};
  HWY_ALIGN float max[kBatchGroups] = {};
  HWY_ALIGN float scale[kBatchGroups];
  HWY_ALIGN float inverse[kBatchGroups];
  HWY_ALIGN int32_t zero_point[kBatchGroups] = {};

  template <bool kSymmetric>
  HWY_INLINE void set(size_t i, const QuantizeRange& range) {
    magnitude_bits[i] = range.magnitude_bits;
    if (!kSymmetric) min[i] = range.min, max[i] = range.max;
  }

  HWY_INLINE QuantizeGroup group(size_t i) const {
    return QuantizeGroup{scale[i], inverse[i], zero_point[i]};
  }

  // quantize_group of each range, the same operations lane by lane. False where one is not finite.
  template <bool kSymmetric>
  HWY_INLINE bool settle(int bits) {
    const DF32 df;
    const VF32 one = hn::Set(df, 1.0f), least = hn::Set(df, kFloat32MinNormal);
    VU32 largest = hn::Zero(DU32());
    for (size_t i = 0; i < count; i += N) {
      const VU32 magnitude = hn::Load(DU32(), magnitude_bits + i);
      largest = hn::Max(largest, magnitude);
      VF32 s;
      if (kSymmetric) {
        s = hn::Div(hn::BitCast(df, magnitude), hn::Set(df, bits == 8 ? 127.0f : 7.0f));
      } else {
        const VF32 steps = hn::Set(df, bits == 8 ? 255.0f : 15.0f);
        s = hn::Sub(hn::Div(hn::Load(df, max + i), steps), hn::Div(hn::Load(df, min + i), steps));
      }
      s = hn::IfThenElse(hn::Gt(s, least), s, least);
      // Bits, for a processor told to take denormals for 0 would find those equal to it.
      s = hn::IfThenElse(hn::RebindMask(df, hn::Eq(magnitude, hn::Zero(DU32()))), one, s);
      const VF32 r = hn::Div(one, s);
      hn::Store(s, df, scale + i);
      hn::Store(r, df, inverse + i);
      if (kSymmetric) continue;
      const VI32 down = round_to_int(hn::Mul(hn::Load(df, min + i), r));
      hn::Store(hn::Sub(hn::Set(DI32(), bits == 8 ? -128 : 0), down), DI32(), zero_point + i);
    }
    return hn::GetLane(hn::MaxOfLanes(DU32(), largest)) < 0x7f800000u;
  }
};

}  // namespace
QVLMEM_SIMD_END
