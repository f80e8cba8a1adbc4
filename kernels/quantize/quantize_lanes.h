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

// How far ahead of x memory is asked for, in bytes, where what lies `between` elements after x is
// looked at first, in blocks of whole pages or of halves. The processor's own reading ahead goes on
// while a block is ranged, but stops at the end of a page: a block must not end about where what is
// asked for comes to the end of one. Up to a third faster (measured).
template <class T>
HWY_INLINE size_t ahead_bytes(const T* x, int64_t between) {
  constexpr size_t kLeast = 2 * kPageBytes, kIntoPage = 1024;
  const size_t skipped = static_cast<size_t>(between) * sizeof(T);
  return skipped + kLeast + (kIntoPage - reinterpret_cast<uintptr_t>(x) - skipped) % kPageBytes;
}

// Whether values further on are asked for, and what becomes of them.
enum class Ahead {
  kNone,
  kPage,  // not they, but the translation of their page
  kOnce,  // they are needed for a moment only, and are to push nothing out of L2
  kKept,  // they are to stay in cache
};

// Asks for the lines of kVectors * N elements from `ahead` on.
template <Ahead kAhead, size_t kVectors, class T>
HWY_INLINE void read_ahead(const T* ahead) {
  if (kAhead == Ahead::kNone || kAhead == Ahead::kPage) return;
  if (N == 1) return;  // a line holds several times 4 elements
  for (size_t i = 0; i < kVectors * N * sizeof(T); i += 64) {
    const char* line = reinterpret_cast<const char*>(ahead) + i;
    __builtin_prefetch(line, 0, kAhead == Ahead::kOnce ? 0 : 3);
  }
}

// The address `bytes` after p, in a register of its own: g++ 12 else adds them up for each block
// anew, and asks for all of its lines only when the block is done: up to a tenth slower (measured).
template <class T>
HWY_INLINE const T* address_ahead(const T* p, size_t bytes) {
  const T* ahead = reinterpret_cast<const T*>(reinterpret_cast<uintptr_t>(p) + bytes);
#if defined(__GNUC__)
  __asm__("" : "+r"(ahead));
#endif
  return ahead;
}

// Has the compiler ask for lines where it says so, not all of them first.
HWY_INLINE void keep_order() {
#if defined(__GNUC__)
  __asm__ volatile("" ::: "memory");
#endif
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
