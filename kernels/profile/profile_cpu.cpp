// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/base/checked.h"
#include "kernels/base/float64_bits.h"
#include "kernels/profile/profile_math.h"
#include "kernels/profile/profile_spectrum.h"

namespace qvlmem {
namespace {

constexpr int64_t kExactBytes = 65536;
constexpr int64_t kSample = 16384;
constexpr int64_t kSampleRows = 128;
constexpr int64_t kRun = 64;  // a run costs a miss of the TLB: few and long ones
constexpr double kOutlierDeviations = 6.0;
constexpr int kExponents = 256;
constexpr int kTables = 4;  // histograms in turn: equal neighbours would wait for one another
constexpr int kSums = 8;    // running sums in turn, for the same reason

// How a value's bits divide, for each dtype.
template <class T>
struct Field {};
template <>
struct Field<float> {
  static uint32_t exponent(float v) { return float_to_bits(v) >> 23 & 0xffu; }
  static constexpr uint32_t kNonFinite = 0xffu;
};
template <>
struct Field<Half> {
  static uint32_t exponent(Half v) { return v.bits >> 10 & 0x1fu; }
  static constexpr uint32_t kNonFinite = 0x1fu;
};
template <>
struct Field<BFloat16> {
  static uint32_t exponent(BFloat16 v) { return v.bits >> 7 & 0xffu; }
  static constexpr uint32_t kNonFinite = 0xffu;
};

// Where the elements are that the profile looks at: in x,
template <class T>
struct InPlace {
  const ProfilePlan& plan;
  const T* x;
  // The run that is number `ordinal` of the sample, at element `begin` of x.
  const T* run(int64_t, int64_t begin) const { return x + begin; }
  const T* block_row(int64_t r) const { return x + profile_block_row(plan, r) * plan.cols; }
  int64_t block_col(int64_t c) const { return profile_block_col(plan, c); }
};

// or gathered, as profile_source says.
template <class T>
struct Gathered {
  const ProfilePlan& plan;
  const T* gathered;
  const T* run(int64_t ordinal, int64_t) const { return gathered + ordinal * plan.run_cols; }
  const T* block_row(int64_t r) const {
    const T* const block = gathered + profile_sampled_count(plan);
    return block + r * profile_block_side(plan.cols);
  }
  int64_t block_col(int64_t c) const { return c; }
};

// What one look at the sample collects: finite values, packed, and the rows' largest magnitudes as
// bits, which order as the magnitudes do.
struct Sample {
  float* values;
  uint32_t* row_absmax;
  int64_t count = 0;
  int64_t zeros = 0;
  uint32_t exponents[kTables][kExponents] = {};
};

template <class T>
void collect_run(const T* x, int64_t n, Sample* sample, uint32_t* row_absmax) {
  float* out = sample->values + sample->count;
  int64_t finite = 0, zeros = 0;
  uint32_t absmax = *row_absmax;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t exponent = Field<T>::exponent(x[i]);
    if (exponent == Field<T>::kNonFinite) continue;
    const float value = to_float(x[i]);
    const uint32_t magnitude = float_to_bits(value) & 0x7fffffffu;
    out[finite++] = value;
    zeros += magnitude == 0;
    absmax = std::max(absmax, magnitude);
    ++sample->exponents[i % kTables][exponent];
  }
  sample->count += finite;
  sample->zeros += zeros;
  *row_absmax = absmax;
}

// Calls visit(sampled row, number of the run, index of its first element in x) for every run, in
// order.
template <class Visit>
void for_each_run(const ProfilePlan& plan, Visit visit) {
  int64_t ordinal = 0;
  for (int64_t group = 0; group < plan.row_groups; ++group) {
    const int64_t first = profile_group_begin(plan, group);
    for (int64_t r = 0; r < plan.rows_per_group; ++r) {
      const int64_t row = group * plan.rows_per_group + r, begin = (first + r) * plan.cols;
      for (int64_t run = 0; run < plan.runs_per_row; ++run) {
        visit(row, ordinal++, begin + profile_run_begin(plan, row, run));
      }
    }
  }
}

template <class Place>
void collect(const ProfilePlan& plan, const Place& place, Sample* sample) {
  std::fill(sample->row_absmax, sample->row_absmax + profile_sampled_rows(plan), 0u);
  for_each_run(plan, [&](int64_t row, int64_t ordinal, int64_t begin) {
    collect_run(place.run(ordinal, begin), plan.run_cols, sample, &sample->row_absmax[row]);
  });
}

template <class Term>
double sum_of(const float* values, int64_t n, Term term) {
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (int k = 0; k < kSums; ++k) sums[k] += term(values[i + k]);
  }
  for (int k = 0; i + k < n; ++k) sums[k] += term(values[i + k]);
  for (int width = kSums / 2; width > 0; width /= 2) {
    for (int k = 0; k < width; ++k) sums[k] += sums[k + width];
  }
  return sums[0];
}

double entropy_bits(const Sample& sample) {
  double bits = 0.0;
  for (int e = 0; e < kExponents; ++e) {
    int64_t count = 0;
    for (int table = 0; table < kTables; ++table) count += sample.exponents[table][e];
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(sample.count);
    bits -= share * std::log2(share);
  }
  return std::max(bits, 0.0);
}

// The value at position `rank` of the sorted keys, found byte by byte from the top.
uint32_t select(const uint32_t* keys, int64_t n, int64_t rank) {
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    const uint32_t decided = shift == 24 ? 0 : ~uint32_t{0} << (shift + 8);
    int64_t counts[256] = {};
    for (int64_t i = 0; i < n; ++i) {
      if ((keys[i] & decided) == prefix) ++counts[keys[i] >> shift & 0xffu];
    }
    uint32_t byte = 0;
    while (rank >= counts[byte]) rank -= counts[byte++];
    prefix |= byte << shift;
  }
  return prefix;
}

double row_absmax_spread(const uint32_t* row_absmax, int64_t rows) {
  const float median = bits_to_float(select(row_absmax, rows, (rows - 1) / 2));
  const float largest = bits_to_float(*std::max_element(row_absmax, row_absmax + rows));
  return median == 0.0f ? 0.0 : double{largest} / double{median};
}

// Reads the block with its longer side first, 0 for what is not finite.
template <class T, template <class> class Place>
BlockSpectrum spectrum_of(const ProfilePlan& plan, const Place<T>& place) {
  const int64_t rows = profile_block_side(plan.rows), cols = profile_block_side(plan.cols);
  int64_t col[kProfileBlock];
  for (int64_t c = 0; c < cols; ++c) col[c] = place.block_col(c);
  double block[kProfileBlock * kProfileBlock];
  for (int64_t r = 0; r < rows; ++r) {
    const T* const row = place.block_row(r);
    for (int64_t c = 0; c < cols; ++c) {
      const T element = row[col[c]];
      const double value =
          Field<T>::exponent(element) == Field<T>::kNonFinite ? 0.0 : to_float(element);
      block[rows >= cols ? r * kProfileBlock + c : c * kProfileBlock + r] = value;
    }
  }
  return block_spectrum(block, std::max(rows, cols), std::min(rows, cols));
}

template <class Place>
void profile(const ProfilePlan& plan, const Place& place, void* workspace, double* fields) {
  Sample sample;
  sample.row_absmax = static_cast<uint32_t*>(workspace);
  sample.values = reinterpret_cast<float*>(sample.row_absmax + profile_sampled_rows(plan));
  collect(plan, place, &sample);
  const int64_t n = sample.count;
  if (n == 0) return;
  const double count = static_cast<double>(n);
  const float absmax = bits_to_float(
      *std::max_element(sample.row_absmax, sample.row_absmax + profile_sampled_rows(plan)));
  const double mean = sum_of(sample.values, n, [](float v) { return double{v}; }) / count;
  const auto squared = [mean](float v) { return (v - mean) * (v - mean); };
  const double variance = sum_of(sample.values, n, squared) / count;
  fields[kProfileSparsity] = static_cast<double>(sample.zeros) / count;
  fields[kProfileMean] = mean;
  fields[kProfileVariance] = variance;
  fields[kProfileAbsmax] = absmax;
  const double limit_sq = kOutlierDeviations * kOutlierDeviations * variance;
  const double reach = absmax + std::fabs(mean);
  if (reach * reach > limit_sq) {  // else there is none to look for
    const auto outlier = [&](float v) { return squared(v) > limit_sq ? 1.0 : 0.0; };
    fields[kProfileOutlierRatio] = sum_of(sample.values, n, outlier) / count;
  }
  fields[kProfileRowAbsmaxSpread] =
      row_absmax_spread(sample.row_absmax, profile_sampled_rows(plan));
  fields[kProfileEntropyBits] = entropy_bits(sample);
  const BlockSpectrum spectrum = spectrum_of(plan, place);
  fields[kProfileStableRank] = spectrum.stable_rank;
  fields[kProfileLowRankEnergy] = spectrum.low_rank_energy;
}

template <template <class> class Place>
void profile_elements(const ProfilePlan& plan, const void* elements, void* workspace,
                      double* fields) {
  std::fill(fields, fields + kProfileFields, 0.0);
  fields[kProfileNumel] = static_cast<double>(plan.rows) * static_cast<double>(plan.cols);
  if (plan.row_groups == 0) return;
  const auto run = [&](auto tag) {
    using T = decltype(tag);
    profile(plan, Place<T>{plan, static_cast<const T*>(elements)}, workspace, fields);
  };
  switch (plan.dtype) {
    case DType::kFloat16:
      return run(Half());
    case DType::kBFloat16:
      return run(BFloat16());
    default:
      return run(float());
  }
}

}  // namespace

Status make_profile_plan(int64_t rows, int64_t cols, DType dtype, ProfilePlan* plan) noexcept {
  if (rows < 0 || cols < 0 || !is_lossy_dtype(dtype)) return Status::kInvalidArgument;
  int64_t numel, bytes;
  if (!checked_mul(rows, cols, &numel) || !checked_mul(numel, 8, &bytes)) return Status::kOverflow;
  ProfilePlan p;
  p.rows = rows;
  p.cols = cols;
  p.dtype = dtype;
  if (numel > 0) {
    if (numel * dtype_bytes(dtype) <= kExactBytes) {
      p.row_groups = 1;
      p.rows_per_group = rows;
    } else if (cols <= kSample / kSampleRows) {
      p.rows_per_group = ceil_div(kRun, cols);
      p.row_groups = std::min(rows, kSample / cols) / p.rows_per_group;
    } else {
      p.row_groups = std::min(rows, kSampleRows);
      p.rows_per_group = 1;
    }
    p.runs_per_row = 1;
    p.run_cols = cols;
    const int64_t wanted = kSample / (p.row_groups * p.rows_per_group);
    if (numel * dtype_bytes(dtype) > kExactBytes && cols > wanted) {
      p.runs_per_row = wanted / kRun;
      p.run_cols = kRun;
    }
    const int64_t sampled = p.row_groups * p.rows_per_group;
    p.workspace_bytes =
        static_cast<size_t>(sampled * (1 + p.runs_per_row * p.run_cols)) * sizeof(float);
  }
  *plan = p;
  return Status::kOk;
}

int64_t profile_gathered_count(const ProfilePlan& plan) noexcept {
  return profile_sampled_count(plan) +
         profile_block_side(plan.rows) * profile_block_side(plan.cols);
}

void profile_cpu(const ProfilePlan& plan, const void* x, void* workspace, double* fields) noexcept {
  profile_elements<InPlace>(plan, x, workspace, fields);
}

void profile_gathered_cpu(const ProfilePlan& plan, const void* gathered, void* workspace,
                          double* fields) noexcept {
  profile_elements<Gathered>(plan, gathered, workspace, fields);
}

}  // namespace qvlmem
