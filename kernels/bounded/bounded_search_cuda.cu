// SPDX-License-Identifier: Apache-2.0
// The search for steps. A warp takes a run of values as the CPU's vectors do: lane i has every 32nd
// value from the i-th on, and lanes are added up by halves, so that sums have the same bits.
#include "kernels/bounded/bounded_device.cuh"

namespace qvlmem {
namespace {

constexpr int kGroups = 16;  // of 32 values; their squares are summed up in float32
constexpr int kRun = kGroups * kWarpLanes;
// Looks at long rows in one call: most searches need fewer.
constexpr int kLooks = 5;

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

// Sums over the units of long rows, a warp each.
template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    bounded_unit_moments(BoundedShape shape, const T* x, BoundedMoments* parts) {
  const int64_t unit = warp_index();
  if (unit >= shape.unit_count) return;
  const UnitSpan span = unit_span(shape, unit);
  const BoundedMoments moments = warp_moments(x + span.begin, span.n);
  if (warp_lane() == 0) parts[unit] = moments;
}

template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    bounded_unit_errors(BoundedShape shape, const T* x, const BoundedRowSearch* rows,
                        BoundedError* parts) {
  const int64_t unit = warp_index();
  if (unit >= shape.unit_count) return;
  const UnitSpan span = unit_span(shape, unit);
  const BoundedRowSearch& row = rows[span.row];
  if (row.done) return;
  const int64_t first = span.row * shape.units_per_row.value();
  const int in_row = static_cast<int>(unit - first), stride = static_cast<int>(row.stride);
  if (in_row % stride != 0) return;
  const BoundedError error = warp_error(x + span.begin, span.n, row.search.step);
  if (warp_lane() == 0) parts[first + in_row / stride] = error;
}

// The sum of n parts as bounded_total has it, in the first thread.
template <class Part>
__device__ inline Part block_total(const Part* parts, int64_t n) {
  static_assert(kBoundedLanes == kBlockThreads, "a lane has a thread");
  alignas(Part) __shared__ char place[kBoundedLanes * sizeof(Part)];
  Part* const lanes = reinterpret_cast<Part*>(place);
  const int lane = static_cast<int>(threadIdx.x);
  Part sum;
  for (int64_t i = lane; i < n; i += kBoundedLanes) bounded_add(parts[i], &sum);
  lanes[lane] = sum;
  __syncthreads();
  for (int half = kBoundedLanes / 2; half > 0; half /= 2) {
    if (lane < half) bounded_add(lanes[lane + half], &lanes[lane]);
    __syncthreads();
  }
  return lanes[0];
}

// What a row's units measure next, or are packed with.
__device__ inline float step_of(const BoundedRowSearch& row) {
  const float step = row.done ? row.search.best : row.search.step;
  return step > 0 ? step : 1.0f;
}

__global__ void __launch_bounds__(kBlockThreads)
    bounded_begin_rows(BoundedShape shape, DType dtype, BoundedTarget target,
                       const BoundedMoments* parts, BoundedRowSearch* rows, float* step,
                       BoundedFound* found) {
  const int64_t row = blockIdx.x, units = shape.units_per_row.value();
  const BoundedMoments moments = block_total(parts + row * units, units);
  if (threadIdx.x != 0) return;
  BoundedRowSearch search;
  search.done = true;
  search.search.best = 1.0f;
  if (bounded_is_finite(moments)) {
    search = bounded_row_begin(target, moments, dtype, shape.cols, units);
  } else {
    found->non_finite = 1;
  }
  rows[row] = search;
  step[row] = step_of(search);
}

__global__ void __launch_bounds__(kBlockThreads)
    bounded_update_rows(BoundedShape shape, DType dtype, BoundedTarget target,
                        const BoundedError* parts, BoundedRowSearch* rows, float* step) {
  const int64_t row = blockIdx.x, units = shape.units_per_row.value();
  if (rows[row].done) return;
  const BoundedError error = block_total(parts + row * units, bounded_row_units(rows[row], units));
  if (threadIdx.x != 0) return;
  bounded_row_update(target, error, dtype, shape.cols, units, &rows[row]);
  step[row] = step_of(rows[row]);
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
void search_long_rows(const BoundedPlan& plan, const BoundedShape& shape, const T* x, DType dtype,
                      const BoundedTarget& target, bool first, float* step, BoundedFound* found,
                      const BoundedWorkspace& w, cudaStream_t stream) {
  const dim3 unit_blocks = piece_blocks(plan.unit_count);
  const dim3 row_blocks = grid_of(plan.rows);
  auto* const moments = static_cast<BoundedMoments*>(w.parts);
  auto* const errors = static_cast<BoundedError*>(w.parts);
  if (first) {
    bounded_unit_moments<<<unit_blocks, kPieceThreads, 0, stream>>>(shape, x, moments);
    bounded_begin_rows<<<row_blocks, kBlockThreads, 0, stream>>>(shape, dtype, target, moments,
                                                                 w.rows, step, found);
  }
  for (int look = 0; look < kLooks; ++look) {
    bounded_unit_errors<<<unit_blocks, kPieceThreads, 0, stream>>>(shape, x, w.rows, errors);
    bounded_update_rows<<<row_blocks, kBlockThreads, 0, stream>>>(shape, dtype, target, errors,
                                                                  w.rows, step);
  }
  bounded_tell_rows<<<blocks_for(plan.rows), kBlockThreads, 0, stream>>>(shape, w.rows, found);
}

}  // namespace

cudaError_t bounded_steps_cuda(const BoundedPlan& plan, const void* x, DType dtype,
                               const BoundedTarget& target, bool first, float* step,
                               BoundedFound* found, void* workspace, cudaStream_t stream) noexcept {
  if (plan.unit_count == 0) return cudaSuccess;
  return with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    const auto* const values = static_cast<const T*>(x);
    const BoundedShape shape = bounded_shape(plan, x, sizeof(T));
    if (plan.fused) {
      bounded_solve_rows<<<piece_blocks(plan.rows), kPieceThreads, 0, stream>>>(
          shape, dtype, target, values, step, found);
    } else {
      BoundedWorkspace w;
      bounded_place_workspace(plan, true, workspace, &w);
      search_long_rows(plan, shape, values, dtype, target, first, step, found, w, stream);
    }
    return cudaGetLastError();
  });
}

}  // namespace qvlmem
