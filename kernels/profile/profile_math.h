// SPDX-License-Identifier: Apache-2.0
// Which elements of x the profile looks at, and what becomes of them: one text for host and device.
#pragma once

#include <cmath>

#include "kernels/base/float64_bits.h"
#include "kernels/base/macros.h"
#include "kernels/base/sample.h"
#include "kernels/profile/profile.h"

namespace qvlmem {

// ---- The sample: runs of plan.run_cols columns, plan.runs_per_row of each sampled row ----

// Sampled rows, of which plan.rows_per_group in turn lie side by side in x.
QVLMEM_HD inline int64_t profile_sampled_rows(const ProfilePlan& plan) {
  return plan.row_groups * plan.rows_per_group;
}

QVLMEM_HD inline int64_t profile_sampled_count(const ProfilePlan& plan) {
  return profile_sampled_rows(plan) * plan.runs_per_row * plan.run_cols;
}

// The row of x at which a group of sampled rows begins.
QVLMEM_HD inline int64_t profile_group_begin(const ProfilePlan& plan, int64_t group) {
  return sample_begin(plan.rows, plan.row_groups, group, plan.rows_per_group, group);
}

// The column at which a run of a sampled row begins.
QVLMEM_HD inline int64_t profile_run_begin(const ProfilePlan& plan, int64_t sampled_row,
                                           int64_t run) {
  if (plan.run_cols == plan.cols) return 0;
  return sample_begin(plan.cols, plan.runs_per_row, run, plan.run_cols,
                      sampled_row * plan.runs_per_row + run);
}

// ---- The block whose spectrum is taken: the same columns of each of its rows ----

constexpr int64_t kProfileBlockRun = 16;  // columns of the block that lie side by side

QVLMEM_HD inline int64_t profile_block_side(int64_t size) {
  return size < kProfileBlock ? size : kProfileBlock;
}

QVLMEM_HD inline int64_t profile_block_row(const ProfilePlan& plan, int64_t r) {
  return sample_begin(plan.rows, profile_block_side(plan.rows), r, 1, r);
}

QVLMEM_HD inline int64_t profile_block_col(const ProfilePlan& plan, int64_t c) {
  const int64_t cols = profile_block_side(plan.cols);
  const int64_t run = plan.cols <= kProfileBlock ? cols : kProfileBlockRun;
  return sample_begin(plan.cols, cols / run, c / run, run, c / run) + c % run;
}

// Where an element of the block stands in the square whose spectrum is taken: its longer side
// first.
QVLMEM_HD inline int64_t profile_block_place(int64_t rows, int64_t cols, int64_t r, int64_t c) {
  return rows >= cols ? r * kProfileBlock + c : c * kProfileBlock + r;
}

// ---- Gathered: what a device does first, for one place of the sample is far from the next ----

// The element of x that is gathered as element i: the sample's runs, then the block, row by row.
QVLMEM_HD inline int64_t profile_source(const ProfilePlan& plan, int i) {
  const int run_cols = static_cast<int>(plan.run_cols);
  const int runs_per_row = static_cast<int>(plan.runs_per_row);
  const int rows_per_group = static_cast<int>(plan.rows_per_group);
  const int sampled = static_cast<int>(profile_sampled_count(plan));
  if (i < sampled) {
    const int run = i / run_cols, row = run / runs_per_row, group = row / rows_per_group;
    return (profile_group_begin(plan, group) + row % rows_per_group) * plan.cols +
           profile_run_begin(plan, row, run % runs_per_row) + i % run_cols;
  }
  const int at = i - sampled, cols = static_cast<int>(profile_block_side(plan.cols));
  return profile_block_row(plan, at / cols) * plan.cols + profile_block_col(plan, at % cols);
}

// ---- What an element tells ----

// How a value's bits divide, for each dtype.
template <class T>
struct ProfileBits {};
template <>
struct ProfileBits<float> {
  QVLMEM_HD static uint32_t exponent(float v) { return float_to_bits(v) >> 23 & 0xffu; }
  static constexpr uint32_t kNonFinite = 0xffu;
};
template <>
struct ProfileBits<Half> {
  QVLMEM_HD static uint32_t exponent(Half v) { return v.bits >> 10 & 0x1fu; }
  static constexpr uint32_t kNonFinite = 0x1fu;
};
template <>
struct ProfileBits<BFloat16> {
  QVLMEM_HD static uint32_t exponent(BFloat16 v) { return v.bits >> 7 & 0xffu; }
  static constexpr uint32_t kNonFinite = 0xffu;
};
constexpr int kProfileExponents = 256;

// What stands for an element in the block: 0 for what is not finite.
template <class T>
QVLMEM_HD inline double profile_block_value(T element) {
  const bool finite = ProfileBits<T>::exponent(element) != ProfileBits<T>::kNonFinite;
  return finite ? to_float(element) : 0.0f;
}

// Magnitudes as bits, which order as the magnitudes do.
QVLMEM_HD inline uint32_t profile_magnitude(float value) {
  return float_to_bits(value) & 0x7fffffffu;
}

// ---- Sums ----

// The sample's finite values, in order, are cut into segments. Within one, value i counts to lane
// i % kProfileLanes; lanes are then added up by halves. The segments' sums are one more segment.
constexpr int kProfileLanes = 8;
constexpr int kProfileSegment = 512;
constexpr int kProfileMaxSegments = 64;
static_assert(kProfileMaxSegments <= kProfileSegment, "the segments' sums are one segment");

QVLMEM_HD inline double profile_squared(float value, double mean) {
  return (value - mean) * (value - mean);
}

// ---- Fields ----

QVLMEM_HD inline double profile_numel(const ProfilePlan& plan) {
  return static_cast<double>(plan.rows) * static_cast<double>(plan.cols);
}

// The square of the distance from the mean beyond which a value is an outlier.
QVLMEM_HD inline double profile_outlier_limit(double variance) { return 6.0 * 6.0 * variance; }

// Whether there may be an outlier at all.
QVLMEM_HD inline bool profile_reaches(double absmax, double mean, double limit) {
  const double reach = absmax + fabs(mean);
  return reach * reach > limit;
}

QVLMEM_HD inline double profile_spread(float largest, float median) {
  return median == 0.0f ? 0.0 : double{largest} / double{median};
}

// log2(x) with a relative error below 4e-16; the same bits everywhere, which libraries do not
// promise. REQUIRES: x normal and above 0.
QVLMEM_HD inline double profile_log2(double x) {
  int exponent = exponent_of(x);
  double m = x * power_of_two(-exponent);
  if (m > 0x1.6a09e667f3bcdp0) {  // sqrt(2)
    m *= 0.5;
    ++exponent;
  }
  // ln(m) = 2 artanh(s), |s| < 0.172: the series' next term is below 2^-55 of it.
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double series = 1.0 / 21.0;
  series = series * z + 1.0 / 19.0;
  series = series * z + 1.0 / 17.0;
  series = series * z + 1.0 / 15.0;
  series = series * z + 1.0 / 13.0;
  series = series * z + 1.0 / 11.0;
  series = series * z + 1.0 / 9.0;
  series = series * z + 1.0 / 7.0;
  series = series * z + 1.0 / 5.0;
  series = series * z + 1.0 / 3.0;
  series = series * z + 1.0;
  return exponent + 0x1.71547652b82fep1 * (s * series);  // 2 / ln(2)
}

// What an exponent that `count` of `total` values have adds to the entropy.
QVLMEM_HD inline double profile_entropy_term(int64_t count, double total) {
  if (count == 0) return 0.0;
  const double share = static_cast<double>(count) / total;
  return -(share * profile_log2(share));
}

}  // namespace qvlmem
