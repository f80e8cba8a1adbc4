// SPDX-License-Identifier: Apache-2.0
// Per-element formulas of bounded, and the choice of its step: one text for host and device. Only
// operations that round correctly everywhere (+ - * / sqrt) touch a step, so that every back end
// chooses the same.
//
// Which step? Let x have n values, S = sum x^2, and let E(s) be the sum of squared errors with step
// s. While s is small against the values, errors are uniform: E = n s^2 / 12 (Bennett 1948). As s
// grows past them everything becomes 0: E -> S. With f = E / (e^2 S), which must be at most 1 for
// a bound e, both ends lie on
//     1 / f = A / s^2 + B,    A = 12 e^2 S / n,  B = e^2,
// linear in 1 / s^2. It gives the first step, f = `aim`, in closed form; from then on the same
// straight line through measured points gives the next (a secant method in these variables), kept
// inside the bracket of the largest step known to hold and the smallest known not to. Every answer
// is measured, with y as it comes back (rounded to its dtype), so the model decides only how soon.
//
// 16-bit dtypes: x lies on a grid of spacing u (its unit in the last place) and y is rounded to
// that grid. Where s < u, y = x; where s is well above u, both roundings add up to (s^2 + u^2)
// / 12.
//
// The bound on elements: z = q s is within s / 2 of x, and y is the value of the dtype nearest to
// z, while x is such a value too: |y - z| <= |x - z|, so |y - x| <= s; also |y - x| <= s / 2 + h, h
// half a unit in the last place of max|x|. So with the largest error E allowed, max(E, 2 (E - h))
// always holds (up to float32's own rounding, which is measured).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/base/float_bits.h"

namespace qvlmem {

// |q| is at most 2^30.
constexpr float kBoundedMaxSteps = 1073741824.0f;

// Sums over some values of x.
struct BoundedMoments {
  double sum_squares = 0;
  uint32_t magnitude_bits = 0;  // of max|x|, as an integer: NaN and infinity outrank the finite
};

QVLMEM_HD inline bool bounded_is_finite(const BoundedMoments& moments) {
  return moments.magnitude_bits < 0x7f800000u;
}

QVLMEM_HD inline void bounded_add(const BoundedMoments& part, BoundedMoments* sum) {
  sum->sum_squares += part.sum_squares;
  if (part.magnitude_bits > sum->magnitude_bits) sum->magnitude_bits = part.magnitude_bits;
}

// Of the same values as they come back.
struct BoundedError {
  double sum_squares = 0;  // of x - y
  float max = 0;           // of |x - y|
};

QVLMEM_HD inline void bounded_add(const BoundedError& part, BoundedError* sum) {
  sum->sum_squares += part.sum_squares;
  if (part.max > sum->max) sum->max = part.max;
}

// tensor, row: ||x - y|| <= max_error ||x||. element: max|x - y| <= max_error max|x|.
enum class BoundedNorm : uint8_t { kFrobenius = 0, kElement = 1 };

struct BoundedTarget {
  BoundedNorm norm;
  double max_error;  // > 0
  // Steps of 8 significant bits, wherever one does: bfloat16 holds them. They are 0.3% shorter, or
  // 0.004 bit a value; of short rows, 16 bits each are more.
  bool short_steps = false;
};

// A step as the encoder uses it: value / step is (value * lift) * inverse, with a power of two that
// keeps `inverse` away from the ends of float32's range.
struct BoundedStep {
  float step;
  float lift;
  float inverse;  // 1 / (step * lift)
};

QVLMEM_HD inline BoundedStep bounded_step(float step) {
  const float lift = step < 0x1p-64f ? 0x1p64f : (step > 0x1p64f ? 0x1p-64f : 1.0f);
  return BoundedStep{step, lift, 1.0f / (step * lift)};
}

// Round half to even for |value| <= 2^30.
QVLMEM_HD inline float bounded_round(float value) {
  // Above 2^23 every float is whole; below, adding 2^23 leaves no room for a fraction.
  const float magic = value < 0 ? -8388608.0f : 8388608.0f;
  return value > -8388608.0f && value < 8388608.0f ? (value + magic) - magic : value;
}

// The integer of one element; NaN and what exceeds 2^30 become +-2^30.
QVLMEM_HD inline int32_t bounded_quantize(float value, const BoundedStep& step) {
  float steps = value * step.lift * step.inverse;
  steps = steps > -kBoundedMaxSteps ? steps : -kBoundedMaxSteps;
  steps = steps < kBoundedMaxSteps ? steps : kBoundedMaxSteps;
#if defined(__CUDA_ARCH__)
  return __float2int_rn(steps);
#else
  return static_cast<int32_t>(bounded_round(steps));
#endif
}

template <class T>
QVLMEM_HD inline T bounded_dequantize(int32_t q, float step) {
  return from_float_saturating<T>(static_cast<float>(q) * step);
}

// Half a unit in the last place, relative to the value, at most.
constexpr double bounded_half_ulp(DType dtype) {
  return dtype == DType::kFloat16 ? 0x1p-11 : (dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-24);
}

// How far the error is from its bound: at most 1 where it holds. Quadratic in the error for both
// norms.
QVLMEM_HD inline double bounded_excess(const BoundedTarget& target, const BoundedMoments& moments,
                                       const BoundedError& error) {
  // Errors are summed up in float32, 16 squares at a time: the sum may be off by 16 roundings.
  const double slack = 1 + 0x1p-18;
  const double e = target.max_error;
  if (error.max == 0) return 0;  // whatever underflows below
  if (target.norm == BoundedNorm::kElement) {
    const double ratio = error.max * slack / (e * bits_to_float(moments.magnitude_bits));
    return ratio * ratio;
  }
  return error.sum_squares * slack / (e * e * moments.sum_squares);
}

constexpr int kBoundedTries = 8;      // after these the best known will do
constexpr int kBoundedMaxTries = 40;  // after these there is none

// The search for the largest step whose error holds. Use: bounded_search; then while !done, measure
// `step` and update. In the end `best` is the step, or 0 where none was found.
struct BoundedSearch {
  float step = 1.0f;  // to be measured next
  bool done = false;
  float best = 0;  // the largest step known to hold
  int tries = 0;
  double over = 0;                    // the smallest step known not to hold
  double last = 0, last_inverse = 0;  // the step measured last, and 1 / f there
  float low = 0, high = 0;            // steps outside make no sense
  bool short_steps = false;
  double aim = 1, enough = 0;  // f to aim at, and f that will do
  double floor_inverse = 0;    // 1 / f where everything is 0: B
  float fallback = 0;          // where above 0, `step` is a guess and this the model's step
};

// The step below with 8 significant bits (fewer where that is subnormal).
QVLMEM_HD inline float bounded_shorter(float step) {
  return bits_to_float(float_to_bits(step) & 0xffff0000u);
}

// `step` as a step to measure, within [low, high]. Where the largest value is more than 2^22 steps,
// float32's own rounding comes near a step: there a power of two is taken, with which quotients and
// products are exact, and values beyond 2^24 steps come back as they were. So max_error can be as
// low as sqrt(n) 2^-29: no error exceeds a step of max|x| / 2^29.
QVLMEM_HD inline float bounded_candidate(const BoundedSearch& s, double step) {
  if (step >= s.high) return s.high;
  if (step <= s.low) return s.low;
  const float candidate = static_cast<float>(step);
  if (candidate > s.high * 0x1p-23f) {
    const float shorter = s.short_steps ? bounded_shorter(candidate) : candidate;
    return shorter >= s.low ? shorter : candidate;
  }
  const float power = bits_to_float(float_to_bits(candidate) & 0x7f800000u);
  return power > s.low ? power : s.low;
}

// n: number of values that the measurements cover. REQUIRES: finite moments, n > 0, max_error > 0.
// Where all values are zero, done at once: any step gives zeros back, and best is 1.
QVLMEM_HD inline BoundedSearch bounded_search(const BoundedTarget& target,
                                              const BoundedMoments& moments, int64_t n,
                                              DType dtype) {
  BoundedSearch search;
  const double largest = bits_to_float(moments.magnitude_bits);
  const double e = target.max_error;
  if (largest == 0) {
    search.best = 1.0f;
    search.done = true;
    return search;
  }
  // 2.25 max|x| rounds everything to 0; the power of two that max|x| is 2^29 to 2^30 times of is as
  // fine as q can be.
  const double high = 2.25 * largest;
  const double low = 0x1p-29 * bits_to_float(moments.magnitude_bits & 0x7f800000u);
  search.high = high < double{kFloat32Max} ? static_cast<float>(high) : kFloat32Max;
  search.short_steps = target.short_steps;
  if (search.short_steps && bounded_shorter(search.high) > 2 * largest) {
    search.high = bounded_shorter(search.high);
  }
  search.low = low > 0x1p-149 ? static_cast<float>(low) : 0x1p-149f;
  search.over = high;
  search.floor_inverse = e * e;
  if (e >= 1) {  // no value rounds to what is further from it than 0
    search.best = search.high;
    search.done = true;
    return search;
  }
  double step;
  if (target.norm == BoundedNorm::kElement) {
    // The largest error is soon as large as it gets; with 16 bits it moves in leaps.
    search.enough = 0.9;
    search.aim = 0.95;
    const double allowed = e * largest, half = bounded_half_ulp(dtype) * largest;
    step = allowed > 2 * half ? 2 * (allowed - half) : allowed;
  } else {
    // The measured error scatters by about 1 / sqrt(n) around its mean; and another look at x for
    // less than 1% of a step, 0.01 bit a value, does not pay.
    const double tolerance = 0.015 + 1 / sqrt(static_cast<double>(n));
    search.enough = 1 - tolerance;
    search.aim = tolerance < 1 ? 1 - tolerance / 2 : 0.5;
    const double ulp = dtype == DType::kFloat32 ? 0 : 2 * bounded_half_ulp(dtype);
    const double rounding = 0.54 * ulp * ulp;  // mean of u^2 / x^2 over a binade
    const double square = 12 * e * e / (1 / search.aim - e * e);
    const double mean_square = moments.sum_squares / static_cast<double>(n);
    step = sqrt(mean_square * (square > 3 * rounding ? square - rounding : square));
  }
  search.step = bounded_candidate(search, step);
  // Where all magnitudes are alike, a step that is far too long for the model may hit them all.
  const bool alike = moments.sum_squares >= 0.5 * static_cast<double>(n) * largest * largest;
  if (alike && step < largest) {
    search.fallback = search.step;
    search.step = static_cast<float>(largest);
  }
  return search;
}

// Where the line through two points (1 / s^2, 1 / f) reaches `goal`: that s, or 0 where it rises
// the wrong way or never gets there. b_inverse is 1 / s^2, to allow for s without end.
QVLMEM_HD inline double bounded_line(double a_step, double a_inverse, double b_inverse_square,
                                     double b_inverse, double goal) {
  const double a = 1 / (a_step * a_step);
  const double slope = (a_inverse - b_inverse) / (a - b_inverse_square);
  const double point = a + (goal - a_inverse) / slope;
  return slope > 0 && point > 0 ? 1 / sqrt(point) : 0;
}

// f: bounded_excess measured at search->step.
QVLMEM_HD inline void bounded_search_update(double f, BoundedSearch* search) {
  BoundedSearch& s = *search;
  const double step = s.step, inverse = 1 / (f > 1e-30 ? f : 1e-30);
  if (f <= 1) {
    s.best = s.step;
  } else {
    s.over = step;
  }
  if (s.fallback > 0) {
    s.done = f <= 1;
    s.step = s.fallback;
    s.fallback = 0;
    return;
  }
  ++s.tries;
  if (s.best > 0) {
    s.done = (f <= 1 && f >= s.enough) || s.best >= s.high || s.tries >= kBoundedTries ||
             s.over < s.best * 1.01;  // nothing left to gain
  } else {
    s.done = s.step <= s.low || s.tries >= kBoundedMaxTries;
  }
  if (s.done) return;
  const double goal = 1 / s.aim;
  const double above = s.over, below = s.best;
  double next = s.tries == 1
                    ? bounded_line(step, inverse, 0, s.floor_inverse, goal)
                    : bounded_line(step, inverse, 1 / (s.last * s.last), s.last_inverse, goal);
  // Where the line leads outside of what is possible, halve that: by the mean of the logarithms.
  const bool inside = next > below * 1.001 && next < above * 0.999;
  if (!inside) next = below > 0 ? sqrt(below * above) : above / 2;
  if (below == 0 && s.tries >= 4) next = next < above / 2 ? next : above / 2;
  s.step = bounded_candidate(s, next);
  s.done = below > 0 && s.step <= s.best;  // none between
  s.last = step;
  s.last_inverse = inverse;
}

}  // namespace qvlmem
