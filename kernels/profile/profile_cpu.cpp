// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/base/checked.h"
#include "kernels/profile/profile_math.h"
#include "kernels/profile/profile_spectrum.h"

namespace qvlmem {
namespace {

constexpr int64_t kExactBytes = 65536;
constexpr int64_t kSample = 16384;
constexpr int64_t kSampleRows = 128;
constexpr int64_t kRun = 64;  // a run costs a miss of the TLB: few and long ones
constexpr int kTables = 4;    // histograms in turn: equal neighbours would wait for one another
static_assert(kExactBytes / 2 <= kProfileMaxSegments * kProfileSegment);

// What one look at the sample collects: finite values, packed, and the rows' largest magnitudes as
// bits, which order as the magnitudes do.
struct Sample {
  float* values;
  uint32_t* row_absmax;
  int64_t count = 0;
  int64_t zeros = 0;
  uint32_t exponents[kTables][kProfileExponents] = {};
};

template <class T>
void collect_run(const T* x, int64_t n, Sample* sample, uint32_t* row_absmax) {
  float* out = sample->values + sample->count;
  int64_t finite = 0, zeros = 0;
  uint32_t absmax = *row_absmax;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t exponent = ProfileBits<T>::exponent(x[i]);
    if (exponent == ProfileBits<T>::kNonFinite) continue;
    const float value = to_float(x[i]);
    const uint32_t magnitude = profile_magnitude(value);
    out[finite++] = value;
    zeros += magnitude == 0;
    absmax = std::max(absmax, magnitude);
    ++sample->exponents[i % kTables][exponent];
  }
  sample->count += finite;
  sample->zeros += zeros;
  *row_absmax = absmax;
}

// Looks at every run of the sample, in order.
template <class T>
void collect(const ProfilePlan& plan, const T* x, Sample* sample) {
  std::fill(sample->row_absmax, sample->row_absmax + profile_sampled_rows(plan), 0u);
  for (int64_t group = 0; group < plan.row_groups; ++group) {
    const int64_t first = profile_group_begin(plan, group);
    for (int64_t r = 0; r < plan.rows_per_group; ++r) {
      const int64_t row = group * plan.rows_per_group + r, begin = (first + r) * plan.cols;
      for (int64_t run = 0; run < plan.runs_per_row; ++run) {
        collect_run(x + begin + profile_run_begin(plan, row, run), plan.run_cols, sample,
                    &sample->row_absmax[row]);
      }
    }
  }
}

// n: up to kProfileSegment.
template <class Value, class Term>
double segment_sum(const Value* values, int64_t n, Term term) {
  double sums[kProfileLanes] = {};
  int64_t i = 0;
  for (; i + kProfileLanes <= n; i += kProfileLanes) {
    for (int k = 0; k < kProfileLanes; ++k) sums[k] += term(values[i + k]);
  }
  for (int k = 0; i + k < n; ++k) sums[k] += term(values[i + k]);
  for (int width = kProfileLanes / 2; width > 0; width /= 2) {
    for (int k = 0; k < width; ++k) sums[k] += sums[k + width];
  }
  return sums[0];
}

double total_of(const double* parts, int64_t n) {
  return segment_sum(parts, n, [](double part) { return part; });
}

template <class Term>
double sum_of(const float* values, int64_t n, Term term) {
  double parts[kProfileMaxSegments] = {};
  int64_t count = 0;
  for (int64_t begin = 0; begin < n; begin += kProfileSegment) {
    parts[count++] =
        segment_sum(values + begin, std::min<int64_t>(n - begin, kProfileSegment), term);
  }
  return total_of(parts, count);
}

double entropy_bits(const Sample& sample) {
  double terms[kProfileExponents];
  for (int e = 0; e < kProfileExponents; ++e) {
    int64_t count = 0;
    for (int table = 0; table < kTables; ++table) count += sample.exponents[table][e];
    terms[e] = profile_entropy_term(count, static_cast<double>(sample.count));
  }
  static_assert(kProfileExponents <= kProfileSegment);
  return total_of(terms, kProfileExponents);
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
  return profile_spread(largest, median);
}

// Reads the block with its longer side first, 0 for what is not finite.
template <class T>
BlockSpectrum spectrum_of(const ProfilePlan& plan, const T* x) {
  const int64_t rows = profile_block_side(plan.rows), cols = profile_block_side(plan.cols);
  int64_t col[kProfileBlock];
  for (int64_t c = 0; c < cols; ++c) col[c] = profile_block_col(plan, c);
  double block[kProfileBlock * kProfileBlock];
  for (int64_t r = 0; r < rows; ++r) {
    const T* const row = x + profile_block_row(plan, r) * plan.cols;
    for (int64_t c = 0; c < cols; ++c) {
      block[profile_block_place(rows, cols, r, c)] = profile_block_value(row[col[c]]);
    }
  }
  return block_spectrum(block, static_cast<int>(std::max(rows, cols)),
                        static_cast<int>(std::min(rows, cols)));
}

template <class T>
void profile_sample(const ProfilePlan& plan, const T* x, void* workspace, double* fields) {
  Sample sample;
  sample.row_absmax = static_cast<uint32_t*>(workspace);
  sample.values = reinterpret_cast<float*>(sample.row_absmax + profile_sampled_rows(plan));
  collect(plan, x, &sample);
  const int64_t n = sample.count;
  if (n == 0) return;
  const double count = static_cast<double>(n);
  const float absmax = bits_to_float(
      *std::max_element(sample.row_absmax, sample.row_absmax + profile_sampled_rows(plan)));
  const double mean = sum_of(sample.values, n, [](float v) { return double{v}; }) / count;
  const auto squared = [mean](float v) { return profile_squared(v, mean); };
  const double variance = sum_of(sample.values, n, squared) / count;
  fields[kProfileSparsity] = static_cast<double>(sample.zeros) / count;
  fields[kProfileMean] = mean;
  fields[kProfileVariance] = variance;
  fields[kProfileAbsmax] = absmax;
  const double limit = profile_outlier_limit(variance);
  if (profile_reaches(absmax, mean, limit)) {  // else there is none to look for
    const auto outlier = [&](float v) { return squared(v) > limit ? 1.0 : 0.0; };
    fields[kProfileOutlierRatio] = sum_of(sample.values, n, outlier) / count;
  }
  fields[kProfileRowAbsmaxSpread] =
      row_absmax_spread(sample.row_absmax, profile_sampled_rows(plan));
  fields[kProfileEntropyBits] = entropy_bits(sample);
}

template <class T>
void profile_elements(const ProfilePlan& plan, const T* x, void* workspace, double* fields) {
  profile_sample(plan, x, workspace, fields);
  const BlockSpectrum spectrum = spectrum_of(plan, x);
  fields[kProfileStableRank] = spectrum.stable_rank;
  fields[kProfileLowRankEnergy] = spectrum.low_rank_energy;
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
  std::fill(fields, fields + kProfileFields, 0.0);
  fields[kProfileNumel] = profile_numel(plan);
  if (plan.row_groups == 0) return;
  switch (plan.dtype) {
    case DType::kFloat16:
      return profile_elements(plan, static_cast<const Half*>(x), workspace, fields);
    case DType::kBFloat16:
      return profile_elements(plan, static_cast<const BFloat16*>(x), workspace, fields);
    default:
      return profile_elements(plan, static_cast<const float*>(x), workspace, fields);
  }
}

}  // namespace qvlmem
