// SPDX-License-Identifier: Apache-2.0
// The search for steps. A warp takes a run of values as the CPU's vectors do: lane i has every 32nd
// value from the i-th on, and lanes are added up by halves, so that sums have the same bits.
#include <algorithm>

#include "kernels/bounded/bounded_device.cuh"

namespace qvlmem {
namespace {

constexpr int kGroups = 16;  // of 32 values; their squares are summed up in float32
constexpr int kRun = kGroups * kWarpLanes;

// One value a lane of each of the next 16 groups; zeros, which add nothing, beyond the run.
template <class T>
__device__ __forceinline__ void load_groups(const T* x, int left, float (&value)[kGroups]) {
  const int lane = warp_lane();
  if (left >= kRun) {
#pragma unroll
    for (int k = 0; k < kGroups; ++k) value[k] = to_float(x[k * kWarpLanes + lane]);
    return;
  }
#pragma unroll
  for (int k = 0; k < kGroups; ++k) {
    const int i = k * kWarpLanes + lane;
    value[k] = i < left ? to_float(x[i]) : 0.0f;
  }
}

// The same in all lanes, for addition commutes.
__device__ inline double warp_total(double sum) {
#pragma unroll
  for (int half = kWarpLanes / 2; half > 0; half /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, half);
  }
  return sum;
}

// |value| in float64, by integers where that does: conversions and float64 arithmetic have a 32nd
// of the rate on GeForce cards.
__device__ inline double wide_magnitude(uint32_t bits) {
  if (bits - 0x00800000u < 0x7f000000u) {
    return __hiloint2double(static_cast<int>((bits >> 3) + 0x38000000u),
                            static_cast<int>(bits << 29));
  }
  return bits == 0 ? 0.0 : static_cast<double>(bits_to_float(bits));
}

template <class T>
__device__ inline BoundedMoments warp_moments(const T* x, int n) {
  double sum = 0;
  uint32_t top = 0;
  for (int at = 0; at < n; at += kRun) {
    float value[kGroups];
    load_groups(x + at, n - at, value);
#pragma unroll
    for (int k = 0; k < kGroups; ++k) {
      const uint32_t bits = float_to_bits(value[k]) & 0x7fffffffu;
      top = max(top, bits);
      // The square of a float is exact in float64: fused or not, one rounding.
      const double wide = wide_magnitude(bits);
      sum = fma(wide, wide, sum);
    }
  }
  BoundedMoments moments;
  moments.sum_squares = warp_total(sum);
  moments.magnitude_bits = team_max<kWarpLanes>(top);
  return moments;
}

// REQUIRES: finite x, max|x| <= 2^30 step.
template <class T>
__device__ inline BoundedError warp_error(const T* x, int n, float step_length) {
  const BoundedStep step = bounded_step(step_length);
  double sum = 0;
  uint32_t top = 0;
  for (int at = 0; at < n; at += kRun) {
    float value[kGroups];
    load_groups(x + at, n - at, value);
    float part = 0;
#pragma unroll
    for (int k = 0; k < kGroups; ++k) {
      const float steps = value[k] * step.lift * step.inverse;
      const T y = from_float_saturating<T>(rintf(steps) * step.step);
      const float difference = value[k] - to_float(y);
      top = max(top, float_to_bits(difference) & 0x7fffffffu);
      const float relative = difference * step.lift * step.inverse;
      part += relative * relative;
    }
    sum += part;
  }
  BoundedError error;
  error.sum_squares = warp_total(sum) * step.step * step.step;
  error.max = bits_to_float(team_max<kWarpLanes>(top));
  return error;
}

__device__ inline void tell(float best, BoundedFound* found) {
  if (best == 0) found->missed = 1;
  if (bounded_shorter(best) != best) found->long_steps = 1;
}

// A warp finds the step of a row.
template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    bounded_solve_rows(BoundedShape shape, DType dtype, BoundedTarget target, const T* x,
                       float* step, BoundedFound* found) {
  const int64_t row = warp_index();
  if (row >= shape.rows) return;
  const int n = static_cast<int>(shape.cols);
  const T* const values = x + row * shape.cols;
  const BoundedMoments moments = warp_moments(values, n);
  if (!bounded_is_finite(moments)) {
    if (warp_lane() == 0) {
      found->non_finite = 1;
      step[row] = 1.0f;
    }
    return;
  }
  BoundedSearch search = bounded_search(target, moments, n, dtype);
  while (!search.done) {
    const BoundedError error = warp_error(values, n, search.step);
    bounded_search_update(bounded_excess(target, moments, error), &search);
  }
  if (warp_lane() != 0) return;
  step[row] = search.best > 0 ? search.best : 1.0f;
  tell(search.best, found);
}

// Rows by as many at a time as a grid has warps for. (A loop in the kernel took 30 registers more.)
template <class T>
cudaError_t solve_short_rows(BoundedShape shape, const T* x, DType dtype,
                             const BoundedTarget& target, float* step, BoundedFound* found,
                             cudaStream_t stream) {
  constexpr int64_t kMostRows = int64_t{1} << 32;
  for (int64_t left = shape.rows; left > 0; left -= kMostRows) {
    shape.rows = std::min(left, kMostRows);
    bounded_solve_rows<<<piece_blocks(shape.rows), kPieceThreads, 0, stream>>>(shape, dtype, target,
                                                                               x, step, found);
    x += shape.rows * shape.cols;
    step += shape.rows;
  }
  return cudaGetLastError();
}

// ---- Long rows: a warp a unit, and the one that brings the last part of a row sums them up ----

// Where searches stand before a look and after it: other warps of the look still read the former.
struct RowSearches {
  const BoundedRowSearch* now;
  BoundedRowSearch* next;
  uint32_t* arrived;  // parts of each row, in this look; 0 between looks
  // In device memory, as a row's error is among its parts: what a function takes by reference would
  // else be kept on a stack.
  BoundedTarget* target;
};

// Whether all `count` parts of a row are there with what this lane has written. By a warp, once for
// each part.
__device__ inline bool is_last_part(uint32_t* arrived, int64_t count) {
  int last = 0;
  if (warp_lane() == 0) {
    __threadfence();
    last = atomicAdd(arrived, 1u) == static_cast<uint32_t>(count) - 1;
    if (last) *arrived = 0;
    __threadfence();
  }
  __syncwarp();  // the other lanes, too, see what lane 0 has seen
  return __shfl_sync(kAllLanes, last, 0) != 0;
}

constexpr int kPartWords = 3;  // of a part: a float64 and 32 bits

// The sum of n parts as bounded_total has it, in all lanes of a warp; each has 8 of its lanes.
template <class Part>
__device__ inline Part total_of_parts(const Part* parts, int64_t n) {
  constexpr int kOwn = kBoundedLanes / kWarpLanes;
  Part sum[kOwn];
  for (int64_t begin = 0; begin < n; begin += kBoundedLanes) {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int64_t i = begin + k * kWarpLanes + warp_lane();
      if (i >= n) continue;
      // Past L1: other multiprocessors have written it.
      const auto* const from = reinterpret_cast<const volatile uint32_t*>(parts + i);
      uint32_t word[kPartWords];
#pragma unroll
      for (int w = 0; w < kPartWords; ++w) word[w] = from[w];
      Part part;
      memcpy(&part, word, sizeof(word));
      bounded_add(part, &sum[k]);
    }
  }
#pragma unroll
  for (int half = kOwn / 2; half > 0; half /= 2) {
#pragma unroll
    for (int k = 0; k < half; ++k) bounded_add(sum[k + half], &sum[k]);
  }
#pragma unroll
  for (int half = kWarpLanes / 2; half > 0; half /= 2) {
    uint32_t word[kPartWords];
    memcpy(word, &sum[0], sizeof(word));
#pragma unroll
    for (int w = 0; w < kPartWords; ++w) word[w] = __shfl_xor_sync(kAllLanes, word[w], half);
    Part other;
    memcpy(&other, word, sizeof(word));
    bounded_add(other, &sum[0]);
  }
  return sum[0];
}

// What a row's units measure next, or are packed with.
__device__ inline float step_of(const BoundedRowSearch& row) {
  const float step = row.done ? row.search.best : row.search.step;
  return step > 0 ? step : 1.0f;
}

template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    bounded_begin_rows(BoundedShape shape, DType dtype, BoundedTarget target, const T* x,
                       RowSearches rows, BoundedMoments* parts, float* step, BoundedFound* found) {
  const int64_t unit = warp_index(), units = shape.units_per_row.value();
  if (unit >= shape.unit_count) return;
  if (unit == 0 && warp_lane() == 0) *rows.target = target;
  const UnitSpan span = unit_span(shape, unit);
  const BoundedMoments own = warp_moments(x + span.begin, span.n);
  if (warp_lane() == 0) parts[unit] = own;
  if (!is_last_part(&rows.arrived[span.row], units)) return;
  const BoundedMoments moments = total_of_parts(parts + span.row * units, units);
  if (warp_lane() != 0) return;
  BoundedRowSearch search;
  search.done = true;
  search.search.best = 1.0f;
  if (bounded_is_finite(moments)) {
    search = bounded_row_begin(target, moments, dtype, shape.cols, units);
  } else {
    found->non_finite = 1;
  }
  rows.next[span.row] = search;
  step[span.row] = step_of(search);
}

template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    bounded_look_at_rows(BoundedShape shape, DType dtype, const T* x, RowSearches rows,
                         BoundedError* parts, float* step) {
  const int64_t unit = warp_index(), units = shape.units_per_row.value();
  if (unit >= shape.unit_count) return;
  const UnitSpan span = unit_span(shape, unit);
  const BoundedRowSearch& row = rows.now[span.row];
  const int64_t first = span.row * units;
  const int in_row = static_cast<int>(unit - first), stride = static_cast<int>(row.stride);
  if (row.done) {
    if (in_row == 0 && warp_lane() == 0) rows.next[span.row] = row;
    return;
  }
  if (in_row % stride != 0) return;
  const BoundedError own = warp_error(x + span.begin, span.n, row.search.step);
  if (warp_lane() == 0) parts[first + in_row / stride] = own;
  const int64_t count = bounded_row_units(row, units);
  if (!is_last_part(&rows.arrived[span.row], count)) return;
  const BoundedError error = total_of_parts(parts + first, count);
  if (warp_lane() != 0) return;
  BoundedRowSearch* const next = &rows.next[span.row];
  *next = row;
  parts[first] = error;
  bounded_row_update(*rows.target, parts[first], dtype, shape.cols, units, next);
  step[span.row] = step_of(*next);
}

__global__ void __launch_bounds__(kBlockThreads)
    bounded_tell_rows(BoundedShape shape, const BoundedRowSearch* rows, BoundedFound* found) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x;
  if (row >= shape.rows) return;
  if (rows[row].done) {
    tell(rows[row].search.best, found);
  } else {
    found->open = 1;
  }
}

template <class T>
cudaError_t search_long_rows(const BoundedPlan& plan, const BoundedShape& shape, const T* x,
                             DType dtype, const BoundedTarget& target, BoundedLooks looks,
                             float* step, BoundedFound* found, const BoundedWorkspace& w,
                             cudaStream_t stream) {
  const dim3 blocks = piece_blocks(plan.unit_count);
  if (looks.first) {
    const size_t bytes = static_cast<size_t>(plan.rows) * sizeof(uint32_t);
    const cudaError_t error = cudaMemsetAsync(w.arrived, 0, bytes, stream);
    if (error != cudaSuccess) return error;
    bounded_begin_rows<<<blocks, kPieceThreads, 0, stream>>>(
        shape, dtype, target, x, RowSearches{nullptr, w.rows[0], w.arrived, w.target},
        static_cast<BoundedMoments*>(w.parts), step, found);
  }
  for (int look = 0; look < looks.count; ++look) {
    bounded_look_at_rows<<<blocks, kPieceThreads, 0, stream>>>(
        shape, dtype, x, RowSearches{w.rows[look % 2], w.rows[(look + 1) % 2], w.arrived, w.target},
        static_cast<BoundedError*>(w.parts), step);
  }
  bounded_tell_rows<<<blocks_for(plan.rows), kBlockThreads, 0, stream>>>(shape, w.rows[0], found);
  return cudaGetLastError();
}

}  // namespace

// Of 5880 searches (22 kinds of values from Gaussian to Cauchy, sparse, constant, two-valued and
// weights of a transformer, 33000 to 1.1 million of them in a row, three dtypes, both norms,
// max_error from 1e-4 to 0.3) half took 2 looks at most; rows that are looked at whole took 9 at
// most, those that are first sampled 17. A launch that finds nothing left is
// one load a warp; what it takes on a GPU, or waiting and starting again, was not measured.
int bounded_looks(const BoundedPlan& plan) noexcept {
  if (plan.fused) return 0;
  return bounded_is_sampled(plan.units_per_row) ? 18 : 10;
}

cudaError_t bounded_steps_cuda(const BoundedPlan& plan, const void* x, DType dtype,
                               const BoundedTarget& target, BoundedLooks looks, float* step,
                               BoundedFound* found, void* workspace, cudaStream_t stream) noexcept {
  if (plan.unit_count == 0) return cudaSuccess;
  return with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    const auto* const values = static_cast<const T*>(x);
    const BoundedShape shape = bounded_shape(plan, x, sizeof(T));
    if (plan.fused) return solve_short_rows(shape, values, dtype, target, step, found, stream);
    BoundedWorkspace w;
    bounded_place_workspace(plan, true, workspace, &w);
    return search_long_rows(plan, shape, values, dtype, target, looks, step, found, w, stream);
  });
}

}  // namespace qvlmem
