// SPDX-License-Identifier: Apache-2.0
// float16 with one power-of-two scale for the whole tensor: x ~ half * scale.
//
// The scale. M: the largest finite magnitude of x. The scale brings M into [2^10, 2^16) and below
// 65520, so that nothing finite overflows and small values keep their bits; dividing by it is
// exact. A fixed sample of positions proposes the power of two that brings the sample's maximum
// into [2^12, 2^13). Encoding measures M on its way; the proposal stands where M / proposal is in
// [2^10, 65520), and below 2^10 where it is the smallest scale already. Else x is encoded again
// with the scale that brings M into [2^14, 2^15). Scales are never below the smallest normal number
// of their dtype (float64 for float64 x, else float32), and 1 where no value is finite and nonzero.
// All this depends on the values alone: not on threads, ISA or back end.
//
// float16 x is copied bit by bit, with scale 1. Elsewhere infinities stay, NaN stays NaN (quiet,
// with the payload bits that fit), and x / scale is rounded to nearest even.
//
// How a caller encodes: propose; encode all units in any order and split, keeping the largest of
// what the calls return; settle; encode all units again if the settled scale is another.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/status.h"

namespace qvlmem {

struct HalfPlan {
  int64_t numel = 0;
  DType dtype = DType::kFloat32;  // of x: float32, float16, bfloat16 or float64
  int64_t unit_count = 0;         // units of kHalfUnit elements, the last one shorter
};

constexpr int64_t kHalfUnit = 32768;

// kInvalidArgument for another dtype or a negative size, kOverflow where the bytes exceed 63 bits.
Status make_half_plan(int64_t numel, DType dtype, HalfPlan* plan) noexcept;

// dtype of the scale that x of `dtype` gets.
constexpr DType half_scale_dtype(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

double half_propose_scale_cpu(const HalfPlan& plan, const void* x) noexcept;

// Writes half[0, plan.numel)'s elements of units [unit_begin, unit_end) and returns those units'
// largest finite |x| (0 where there is none, and for float16 x). Where that overflows with `scale`,
// which is then not the final one, what is written is unspecified.
double half_encode_cpu(const HalfPlan& plan, const void* x, double scale, int64_t unit_begin,
                       int64_t unit_end, void* half) noexcept;

// The final scale, from the proposal and the largest finite |x| of all units.
double half_settle_scale(const HalfPlan& plan, double proposed, double magnitude) noexcept;

// y = half * scale, in plan.dtype: a finite product beyond its range becomes its largest finite
// value. Any scale is taken, be it float32's or float64's.
void half_decode_cpu(const HalfPlan& plan, const void* half, double scale, int64_t unit_begin,
                     int64_t unit_end, void* y) noexcept;

}  // namespace qvlmem
