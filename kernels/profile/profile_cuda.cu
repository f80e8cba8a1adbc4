// SPDX-License-Identifier: Apache-2.0
// All multiprocessors gather what the profile looks at, for places are scattered and costly to
// find; then one thread block makes the fields of the sample, and at the same time another those
// of the spectrum. Float64 has a 32nd of the rate of float32 on GeForce cards: a block is as fast
// there as its chains of sums are long.
#include "kernels/base/device.cuh"
#include "kernels/profile/profile_cuda.h"
#include "kernels/profile/profile_math.h"
#include "kernels/profile/profile_spectrum.h"

namespace qvlmem {
namespace {

constexpr int kFieldThreads = 512;
constexpr int kFieldWarps = kFieldThreads / kWarpLanes;
constexpr int kTables = 4;  // histograms in turn: equal exponents would wait for one another

struct ProfileWorkspace {
  uint32_t* row_absmax;
  float* values;  // the sample's finite ones
  void* gathered;
  int64_t bytes;
};

ProfileWorkspace place_workspace(const ProfilePlan& plan, void* memory) {
  ProfileWorkspace w;
  w.row_absmax = static_cast<uint32_t*>(memory);
  w.values = reinterpret_cast<float*>(w.row_absmax + profile_sampled_rows(plan));
  const int64_t own = ceil_div(static_cast<int64_t>(plan.workspace_bytes), 16) * 16;
  w.gathered = static_cast<char*>(memory) + own;
  w.bytes = own + profile_gathered_count(plan) * dtype_bytes(plan.dtype);
  return w;
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    gather(ProfilePlan plan, int count, const T* x, T* gathered, uint32_t* row_absmax) {
  const int i = static_cast<int>(blockIdx.x * kBlockThreads + threadIdx.x);
  const int row_values = static_cast<int>(plan.runs_per_row * plan.run_cols);
  const bool sampled = i < static_cast<int>(profile_sampled_count(plan));
  uint32_t magnitude = 0;
  if (i < count) {
    const T element = x[profile_source(plan, i)];
    gathered[i] = element;
    if (sampled && ProfileBits<T>::exponent(element) != ProfileBits<T>::kNonFinite) {
      magnitude = profile_magnitude(to_float(element));
    }
  }
  const int row = i / row_values, row_of_first = __shfl_sync(kAllLanes, row, 0);
  if (__all_sync(kAllLanes, !sampled || row == row_of_first)) {
    magnitude = team_max<kWarpLanes>(magnitude);
    if (threadIdx.x % kWarpLanes != 0) return;
  }
  if (magnitude != 0) atomicMax(&row_absmax[row], magnitude);
}

// ---- The sample, by a whole block ----

// The sum of a segment of n values, none below 1, by kProfileLanes lanes of a warp; in all of them.
template <class Value, class Term>
__device__ __forceinline__ double lane_sum(const Value* values, int n, int lane, const Term& term) {
  double sum = 0.0;
  for (int i = lane; i < n; i += kProfileLanes) sum += term(values[i]);
#pragma unroll
  for (int half = kProfileLanes / 2; half > 0; half /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, half);
  }
  return sum;
}

// The sum of up to kProfileSegment parts in shared memory, in all threads.
__device__ inline double total_of(const double* parts, int n) {
  const int lane = static_cast<int>(threadIdx.x) % kProfileLanes;
  __syncthreads();
  const double sum = lane_sum(parts, n, lane, [](double part) { return part; });
  __syncthreads();
  return sum;
}

// The sum of the term of n values, in all threads.
template <class Term>
__device__ inline double sum_of(const float* values, int n, double* parts, const Term& term) {
  const int lane = static_cast<int>(threadIdx.x) % kProfileLanes;
  const int segments = (n + kProfileSegment - 1) / kProfileSegment;
  for (int first = 0; first < segments; first += kFieldThreads / kProfileLanes) {
    const int segment = first + static_cast<int>(threadIdx.x) / kProfileLanes;
    const int begin = segment * kProfileSegment;
    const double sum = lane_sum(values + begin, min(n - begin, kProfileSegment), lane, term);
    if (lane == 0 && segment < segments) parts[segment] = sum;
  }
  return total_of(parts, segments);
}

struct SampleCounts {
  uint32_t exponents[kTables][kProfileExponents];
  int of_warp[2][kFieldWarps];
  int zeros;
};

// Packs finite values, in order, and counts; returns how many there are, in all threads.
template <class T>
__device__ inline int collect(const T* gathered, int sampled, float* values, SampleCounts* counts) {
  const int t = static_cast<int>(threadIdx.x), lane = t % kWarpLanes, warp = t / kWarpLanes;
  for (int k = t; k < kTables * kProfileExponents; k += kFieldThreads) {
    counts->exponents[k / kProfileExponents][k % kProfileExponents] = 0;
  }
  if (t == 0) counts->zeros = 0;
  __syncthreads();
  int count = 0, zeros = 0, turn = 0;
  for (int first = 0; first < sampled; first += kFieldThreads) {
    bool finite = false;
    float value = 0.0f;
    if (first + t < sampled) {
      const T element = gathered[first + t];
      const uint32_t exponent = ProfileBits<T>::exponent(element);
      finite = exponent != ProfileBits<T>::kNonFinite;
      value = to_float(element);
      if (finite) atomicAdd(&counts->exponents[t % kTables][exponent], 1u);
    }
    zeros += finite && profile_magnitude(value) == 0;
    const unsigned ballot = __ballot_sync(kAllLanes, finite);
    if (lane == 0) counts->of_warp[turn][warp] = __popc(ballot);
    __syncthreads();
    int place = count + __popc(ballot & ((1u << lane) - 1));
    for (int w = 0; w < kFieldWarps; ++w) {
      const int of_warp = counts->of_warp[turn][w];
      place += w < warp ? of_warp : 0;
      count += of_warp;
    }
    if (finite) values[place] = value;
    turn ^= 1;  // the next round's counts, for some threads still read these
  }
  atomicAdd(&counts->zeros, zeros);
  __syncthreads();
  return count;
}

struct Selection {
  int counts[256];
  uint32_t prefix, largest;
  int rank;
};

// The key at position `rank` of the n sorted ones, found byte by byte from the top, to
// selection->prefix, and the largest one.
__device__ inline void select(const uint32_t* keys, int n, int rank, Selection* selection) {
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) {
    selection->prefix = selection->largest = 0;
    selection->rank = rank;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    const uint32_t decided = shift == 24 ? 0 : ~uint32_t{0} << (shift + 8);
    if (t < 256) selection->counts[t] = 0;
    __syncthreads();
    const uint32_t prefix = selection->prefix;
    uint32_t largest = 0;
    for (int i = t; i < n; i += kFieldThreads) {
      const uint32_t key = keys[i];
      largest = max(largest, key);
      if ((key & decided) == prefix) atomicAdd(&selection->counts[key >> shift & 0xffu], 1);
    }
    if (shift == 24) atomicMax(&selection->largest, largest);
    __syncthreads();
    if (t < kWarpLanes) {  // each lane has 8 of the counts
      constexpr int kOwn = 256 / kWarpLanes;
      int own = 0;
      for (int k = 0; k < kOwn; ++k) own += selection->counts[t * kOwn + k];
      int before = own;
#pragma unroll
      for (int step = 1; step < kWarpLanes; step *= 2) {
        const int other = __shfl_up_sync(kAllLanes, before, step);
        if (t >= step) before += other;
      }
      before -= own;
      int left = selection->rank - before;
      __syncwarp();
      if (left >= 0 && left < own) {
        int byte = t * kOwn;
        while (left >= selection->counts[byte]) left -= selection->counts[byte++];
        selection->prefix = prefix | static_cast<uint32_t>(byte) << shift;
        selection->rank = left;
      }
    }
    __syncthreads();
  }
}

template <class T>
__device__ inline void sample_fields(const ProfilePlan& plan, const T* gathered,
                                     const uint32_t* row_absmax, float* values, double* fields) {
  __shared__ SampleCounts counts;
  __shared__ Selection selection;
  __shared__ double parts[kProfileSegment];
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) fields[kProfileNumel] = profile_numel(plan);
  const int n = collect(gathered, static_cast<int>(profile_sampled_count(plan)), values, &counts);
  if (n == 0) {
    if (t > kProfileNumel && t < kProfileStableRank) fields[t] = 0.0;
    return;
  }
  const int rows = static_cast<int>(profile_sampled_rows(plan));
  select(row_absmax, rows, (rows - 1) / 2, &selection);
  const float absmax = bits_to_float(selection.largest);
  const double count = static_cast<double>(n);
  const double mean = sum_of(values, n, parts, [](float v) { return double{v}; }) / count;
  const auto squared = [mean](float v) { return profile_squared(v, mean); };
  const double variance = sum_of(values, n, parts, squared) / count;
  const double limit = profile_outlier_limit(variance);
  double outliers = 0.0;
  if (profile_reaches(absmax, mean, limit)) {
    outliers = sum_of(values, n, parts, [&](float v) { return squared(v) > limit ? 1.0 : 0.0; });
  }
  if (t < kProfileExponents) {
    int64_t of_exponent = 0;
    for (int table = 0; table < kTables; ++table) of_exponent += counts.exponents[table][t];
    parts[t] = profile_entropy_term(of_exponent, count);
  }
  const double entropy = total_of(parts, kProfileExponents);
  if (t != 0) return;
  fields[kProfileSparsity] = static_cast<double>(counts.zeros) / count;
  fields[kProfileMean] = mean;
  fields[kProfileVariance] = variance;
  fields[kProfileAbsmax] = absmax;
  fields[kProfileOutlierRatio] = outliers / count;
  fields[kProfileRowAbsmaxSpread] = profile_spread(absmax, bits_to_float(selection.prefix));
  fields[kProfileEntropyBits] = entropy;
}

// ---- The spectrum, by a whole block ----

struct ThreadBlock {
  template <class F>
  __device__ void each(int begin, int end, const F& f) const {
    const int i = static_cast<int>(threadIdx.x);
    if (i >= begin && i < end) f(i);
  }
  template <class F>
  __device__ void square(int begin, int end, const F& f) const {
    const int j = static_cast<int>(threadIdx.x) % kSpectrumSide;
    if (j < begin || j >= end) return;
    for (int i = static_cast<int>(threadIdx.x) / kSpectrumSide; i < end;
         i += kFieldThreads / kSpectrumSide) {
      if (i >= begin) f(i, j);
    }
  }
  template <class F>
  __device__ void one(const F& f) const {
    if (threadIdx.x == 0) f();
  }
  __device__ void sync() const { __syncthreads(); }
};

// Bisections by a warp: the middles of this many in turn are 2^levels - 1, a lane each.
constexpr int kLevels = 5;
static_assert(kSpectrumBisections % kLevels == 0 && 1 << kLevels == kWarpLanes);

// Eigenvalue number e of the matrix, 0 the largest, as bisection one after another finds it: all
// bounds have at most 41 bits, none is rounded.
__device__ inline double eigenvalue(const SpectrumSpace& space, int n, int e) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  double low = 0.0, width = 1.0;
  for (int step = 0; step < kSpectrumBisections; step += kLevels) {
    width /= 1 << kLevels;
    const double middle = low + lane * width;
    double pivot = 1.0;
    int above = 0;
    for (int i = 0; i < n; ++i) {
      pivot = spectrum_pivot(space.diagonal[i], space.squared[i], middle, pivot);
      above += pivot > 0.0;
    }
    const unsigned beyond = __ballot_sync(kAllLanes, above > e);
    int place = 0;
    for (int half = kWarpLanes / 2; half > 0; half /= 2) {
      if ((beyond >> (place + half)) & 1u) place += half;
    }
    low += place * width;
  }
  return (low + (low + width)) / 2;
}

template <class T>
__device__ inline void spectrum_fields(const ProfilePlan& plan, const T* elements, double* fields) {
  __shared__ double block[kSpectrumSide * kSpectrumSide];
  __shared__ SpectrumSpace space;
  __shared__ double values[kSpectrumLeading];
  const int t = static_cast<int>(threadIdx.x);
  const int rows = static_cast<int>(profile_block_side(plan.rows));
  const int cols = static_cast<int>(profile_block_side(plan.cols));
  for (int i = t; i < rows * cols; i += kFieldThreads) {
    block[profile_block_place(rows, cols, i / cols, i % cols)] = profile_block_value(elements[i]);
  }
  __syncthreads();
  const ThreadBlock team;
  const int n = min(rows, cols);
  spectrum_gram(team, block, max(rows, cols), n, &space);
  BlockSpectrum spectrum;
  if (space.trace != 0.0) {
    spectrum_tridiagonal(team, n, &space);
    if (t < kSpectrumLeading * kWarpLanes) {
      const double value = eigenvalue(space, n, t / kWarpLanes);
      if (t % kWarpLanes == 0) values[t / kWarpLanes] = value;
    }
    __syncthreads();
    if (t == 0) spectrum = spectrum_of_values(n, values);
  }
  if (t != 0) return;
  fields[kProfileStableRank] = spectrum.stable_rank;
  fields[kProfileLowRankEnergy] = spectrum.low_rank_energy;
}

template <class T>
__global__ void __launch_bounds__(kFieldThreads)
    make_fields(ProfilePlan plan, const T* gathered, const uint32_t* row_absmax, float* values,
                double* fields) {
  if (blockIdx.x == 0) {
    sample_fields(plan, gathered, row_absmax, values, fields);
  } else {
    spectrum_fields(plan, gathered + profile_sampled_count(plan), fields);
  }
}

}  // namespace

int64_t profile_workspace_bytes(const ProfilePlan& plan) noexcept {
  return place_workspace(plan, nullptr).bytes;
}

cudaError_t profile_cuda(const ProfilePlan& plan, const void* x, double* fields, void* workspace,
                         cudaStream_t stream) noexcept {
  if (plan.row_groups == 0) {
    return cudaMemsetAsync(fields, 0, kProfileFields * sizeof(double), stream);
  }
  const ProfileWorkspace w = place_workspace(plan, workspace);
  const auto rows = static_cast<size_t>(profile_sampled_rows(plan));
  const cudaError_t error = cudaMemsetAsync(w.row_absmax, 0, rows * sizeof(uint32_t), stream);
  if (error != cudaSuccess) return error;
  const int count = static_cast<int>(profile_gathered_count(plan));
  return with_lossy_type(plan.dtype, [&](auto element) {
    using T = decltype(element);
    T* const gathered = static_cast<T*>(w.gathered);
    gather<<<blocks_for(count), kBlockThreads, 0, stream>>>(plan, count, static_cast<const T*>(x),
                                                            gathered, w.row_absmax);
    make_fields<<<2, kFieldThreads, 0, stream>>>(plan, gathered, w.row_absmax, w.values, fields);
    return cudaGetLastError();
  });
}

}  // namespace qvlmem
