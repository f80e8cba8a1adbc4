// SPDX-License-Identifier: Apache-2.0
// What the vector sources of quantize share: rounding to integers, narrowing them, reading ahead.
#pragma once

#include "kernels/base/simd.h"
#include "kernels/quantize/quantize.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t N = kLanes32;

using DI8 = hn::Rebind<int8_t, DI32>;  // as many 8-bit lanes as there are 32-bit lanes

// Rounds half to even. REQUIRES: |v| < 2^31, or the result is unspecified.
HWY_INLINE VI32 round_to_int(VF32 v) {
  // Highway corrects what lies beyond int32, four instructions for one.
#if HWY_TARGET == HWY_AVX2
  return VI32{_mm256_cvtps_epi32(v.raw)};
#elif HWY_TARGET == HWY_AVX3
  return VI32{_mm512_cvtps_epi32(v.raw)};
#else
  return hn::NearestInt(v);
#endif
}

// Memory is asked for this far ahead of what is worked on, in bytes: the processor's own reading
// ahead stops at the end of a page, and while values in cache are read again. Not whole pages, or
// the first look at a page would be at the beginning of another: a third slower (measured).
constexpr size_t kAheadBytes = size_t{17} << 10;

// Asks for the lines of the 4 * N elements kAheadBytes after p, which are needed for a moment only
// and are to push nothing out of L2.
template <class T>
HWY_INLINE void read_ahead_once(const T* p) {
  if (N == 1) return;  // a line holds several times 4 elements
  const char* ahead = reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(p) + kAheadBytes);
  for (size_t i = 0; i < 4 * N * sizeof(T); i += 64) __builtin_prefetch(ahead + i, 0, 0);
}

// The same for what is to stay in cache; half as far, for reading alone.
template <class T>
HWY_INLINE void read_ahead(const T* p) {
  if (N == 1) return;
  const char* ahead =
      reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(p) + kAheadBytes / 2);
  for (size_t i = 0; i < 4 * N * sizeof(T); i += 64) __builtin_prefetch(ahead + i, 0, 3);
}

// Where units [begin, end) lie: consecutive elements of x, whole groups where the plan is fused,
// and consecutive bytes of q.
struct QuantizeSpan {
  int64_t row, col;  // of the first element
  int64_t flat;      // its index
  int64_t count;     // elements
};

HWY_INLINE QuantizeSpan span_of(const QuantizePlan& plan, int64_t begin, int64_t end) {
  QuantizeSpan span{begin / plan.units_per_row, begin % plan.units_per_row * plan.unit_cols, 0, 0};
  span.flat = span.row * plan.cols + span.col;
  const int64_t end_row = end / plan.units_per_row;
  span.count = end_row * plan.cols + end % plan.units_per_row * plan.unit_cols - span.flat;
  return span;
}

// The groups of a span, in order. Where the plan is not fused, the first may begin within its group
// and the last go on after the span.
class Groups {
 public:
  Groups(const QuantizePlan& plan, const QuantizeSpan& span)
      : cols_(plan.cols), group_(plan.group), col_(span.col) {}

  // Columns of the next one.
  HWY_INLINE int64_t next() {
    const int64_t left = cols_ - col_;
    const int64_t count = left < group_ ? left : group_;
    col_ = left == count ? 0 : col_ + count;
    return count;
  }

 private:
  const int64_t cols_, group_;
  int64_t col_;
};

}  // namespace
QVLMEM_SIMD_END
