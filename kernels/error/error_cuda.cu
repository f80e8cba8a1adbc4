// SPDX-License-Identifier: Apache-2.0
// A block measures a unit in the CPU's order: a lane of a run is a thread, and one thread adds the
// runs of a unit, which others measured, one after the other. On SM61 float64 arithmetic is what
// costs, so maxima are those of bit patterns, and squares that are exact are added as one
// operation.
#include "kernels/base/device.cuh"
#include "kernels/error/error_cuda.h"
#include "kernels/error/error_math.h"

namespace qvlmem {
namespace {

constexpr int kLanes = kErrorLanes;
constexpr int kAhead = 4;  // pairs of a lane that are on their way at once
constexpr int kTeams = kBlockThreads / kLanes;

__device__ inline double to_double(double value) { return value; }
template <class T>
__device__ inline double to_double(T value) {
  return to_float(value);
}

// A number as a double, by integers: SM61 converts at a 32nd of their rate. REQUIRES: bits of 0 or
// of a normal number.
__device__ inline double widened(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t high = magnitude == 0 ? 0 : (magnitude >> 3) + 0x38000000u;
  return __hiloint2double(static_cast<int>(high | (bits & 0x80000000u)),
                          static_cast<int>(bits << 29));
}

// Running sums and maxima of one lane.
template <class T>
struct LaneSums {
  double error_sq = 0.0, norm_sq = 0.0;
  uint64_t max_error = 0, max_abs = 0;  // bits: of numbers that are not negative they order alike

  __device__ void add(T x, T y, double factor) {
    double a = to_double(x), b = to_double(y);
    if (sizeof(T) == 8) {
      a *= factor;
      b *= factor;
    }
    const ErrorPair pair = error_pair(a, b);
    add_squares(pair.error, pair.magnitude);
    max_abs = max(max_abs, double_to_bits(pair.magnitude));
  }

  // Adds kAhead pairs of zeros and normal numbers, hence finite. False where one is not; then none
  // is added.
  __device__ bool add_plain(const T* x, const T* y) {
    uint32_t a[kAhead], b[kAhead], low = 0xffffffffu, high_a = 0, high_b = 0;
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      a[k] = float_to_bits(to_float(x[k]));
      b[k] = float_to_bits(to_float(y[k]));
      const uint32_t magnitude_a = a[k] & 0x7fffffffu, magnitude_b = b[k] & 0x7fffffffu;
      low = min(low, min(magnitude_a - 1, magnitude_b - 1));  // 0 is above all
      high_a = max(high_a, magnitude_a);
      high_b = max(high_b, magnitude_b);
    }
    if (low < 0x007fffffu || max(high_a, high_b) >= 0x7f800000u) return false;
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const double wide = widened(a[k]);
      add_squares(fabs(wide - widened(b[k])), wide);
    }
    max_abs = max(max_abs, double_to_bits(widened(high_a)));
    return true;
  }

  // Adds the lanes of a team pairwise, to the same in all of them.
  __device__ void add_team() {
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) {
      error_sq += __shfl_xor_sync(kAllLanes, error_sq, step);
      norm_sq += __shfl_xor_sync(kAllLanes, norm_sq, step);
      max_error = max(max_error, other_lane(max_error, step));
      max_abs = max(max_abs, other_lane(max_abs, step));
    }
  }

  __device__ ErrorSums result(int32_t exponent) const {
    ErrorSums sums{error_sq, norm_sq, bits_to_double(max_error), bits_to_double(max_abs), 0};
    unscale_error_sums(exponent, &sums);
    return sums;
  }

 private:
  __device__ void add_squares(double error, double value) {
    error_sq += error * error;
    if (sizeof(T) == 8) {
      norm_sq += value * value;
    } else {
      norm_sq = fma(value, value, norm_sq);
    }
    max_error = max(max_error, double_to_bits(error));
  }

  __device__ static uint64_t other_lane(uint64_t bits, int step) {
    return __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(bits), step);
  }
};

__device__ inline uint32_t finite_word(double value) {
  const uint32_t word = magnitude_word(value);
  return word < 0x7ff00000u ? word : 0u;
}

__device__ inline int32_t exponent_for(uint32_t word) {
  return word == 0 ? 0 : error_run_exponent(static_cast<int>(word >> 20) - 1023);
}

// A team measures a run of n values, at most kErrorRun. REQUIRES: the whole warp; n may be 0.
template <class T>
__device__ ErrorSums measure_run(const T* x, const T* y, int n, int lane) {
  int32_t exponent = 0;
  if constexpr (sizeof(T) == 8) {
    uint32_t top = 0;
    for (int i = lane; i < n; i += kLanes) {
      top = max(top, max(finite_word(x[i]), finite_word(y[i])));
    }
    exponent = exponent_for(team_max<kLanes>(top));
  }
  const double factor = power_of_two(-exponent);
  LaneSums<T> sums;
  int i = lane;
  for (; i + (kAhead - 1) * kLanes < n; i += kAhead * kLanes) {
    T a[kAhead], b[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      a[k] = x[i + k * kLanes];
      b[k] = y[i + k * kLanes];
    }
    if constexpr (sizeof(T) < 8) {
      if (sums.add_plain(a, b)) continue;
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) sums.add(a[k], b[k], factor);
  }
  for (; i < n; i += kLanes) sums.add(x[i], y[i], factor);
  sums.add_team();
  ErrorSums run = sums.result(0);
  if (sizeof(T) ==
      8) {  // as the CPU does, which compares squares; narrower values do not underflow
    run.max_error = sqrt(run.max_error * run.max_error);
    run.max_abs = sqrt(run.max_abs * run.max_abs);
  }
  unscale_error_sums(exponent, &run);
  return run;
}

// A thread measures a row of less than kErrorLanes values.
template <class T>
__device__ ErrorSums measure_short_row(const T* x, const T* y, int cols) {
  int32_t exponent = 0;
  if constexpr (sizeof(T) == 8) {
    uint32_t top = 0;
    for (int i = 0; i < cols; ++i) top = max(top, max(finite_word(x[i]), finite_word(y[i])));
    exponent = exponent_for(top);
  }
  const double factor = power_of_two(-exponent);
  LaneSums<T> sums;
  for (int i = 0; i < cols; ++i) sums.add(x[i], y[i], factor);
  return sums.result(exponent);
}

// The runs of a unit, row by row.
struct UnitShape {
  int rows, cols, runs_per_row;
  int64_t offset;
  __device__ UnitShape(const ErrorPlan& plan, const Divisor& units_per_row, int64_t unit) {
    const int64_t row = units_per_row.split(&unit) * plan.rows_per_unit, col = unit * kErrorUnit;
    rows = static_cast<int>(min(plan.rows_per_unit, plan.rows - row));
    cols = static_cast<int>(min(kErrorUnit, plan.cols - col));
    runs_per_row = (cols + static_cast<int>(kErrorRun) - 1) / static_cast<int>(kErrorRun);
    offset = row * plan.cols + col;
  }
};

// What the threads of a block measured, for the one that adds it up.
template <class T, int kRuns>
struct MeasuredRuns {
  double error_sq[kRuns], norm_sq[kRuns], max_error[kRuns], max_abs[kRuns];
  int32_t exponent[sizeof(T) == 8 ? kRuns : 1];  // 0 but for float64

  __device__ void put(int at, const ErrorSums& run) {
    error_sq[at] = run.error_sq;
    norm_sq[at] = run.norm_sq;
    max_error[at] = run.max_error;
    max_abs[at] = run.max_abs;
    if (sizeof(T) == 8) exponent[at] = run.exponent;
  }
  __device__ ErrorSums get(int at) const {
    return {error_sq[at], norm_sq[at], max_error[at], max_abs[at],
            sizeof(T) == 8 ? exponent[at] : 0};
  }
};

// kShort: rows of less than kErrorLanes values.
template <class T, bool kShort>
__global__ void __launch_bounds__(kBlockThreads)
    measure_units(ErrorPlan plan, Divisor units_per_row, const T* x, const T* y,
                  ErrorPartial* partials) {
  constexpr int kBatch = kShort ? kBlockThreads : 4 * kTeams;
  // Beyond the batch: the sums of the unit and of its row so far, for registers are scarce.
  constexpr int kTotal = kBatch, kRow = kBatch + 1;
  __shared__ MeasuredRuns<T, kBatch + 2> measured;
  __shared__ double worst_row_sq;
  const UnitShape unit(plan, units_per_row, blockIdx.x);
  x += unit.offset;
  y += unit.offset;
  const int runs = unit.rows * unit.runs_per_row;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    measured.put(kTotal, ErrorSums());
    measured.put(kRow, ErrorSums());
    worst_row_sq = 0.0;
  }
  int runs_of_row = 0;
  for (int first = 0; first < runs; first += kBatch) {
    if (kShort) {
      const int r = first + thread;
      if (r < runs) {
        measured.put(thread, measure_short_row(x + r * unit.cols, y + r * unit.cols, unit.cols));
      }
    } else {
      for (int at = thread / kLanes; at < kBatch; at += kTeams) {
        const int run = first + at, r = run / unit.runs_per_row;
        const int begin = (run - r * unit.runs_per_row) * static_cast<int>(kErrorRun);
        const int n = run < runs ? min(static_cast<int>(kErrorRun), unit.cols - begin) : 0;
        const int index = r * unit.cols + begin;
        const ErrorSums sums = measure_run(x + index, y + index, n, thread % kLanes);
        if (thread % kLanes == 0) measured.put(at, sums);
      }
    }
    __syncthreads();
    if (thread == 0) {
      ErrorSums total = measured.get(kTotal), row = measured.get(kRow);
      double worst_sq = worst_row_sq;
      for (int at = 0; at < min(kBatch, runs - first); ++at) {
        add_error_sums(measured.get(at), &row);
        if (++runs_of_row < unit.runs_per_row) continue;
        raise_worst_row(row, &worst_sq);
        add_error_sums(row, &total);
        row = ErrorSums();
        runs_of_row = 0;
      }
      measured.put(kTotal, total);
      measured.put(kRow, row);
      worst_row_sq = worst_sq;
    }
    __syncthreads();
  }
  if (thread == 0) partials[blockIdx.x] = {measured.get(kTotal), worst_row_sq};
}

}  // namespace

cudaError_t measure_error_cuda(const ErrorPlan& plan, const void* x, const void* y,
                               ErrorPartial* partials, cudaStream_t stream) noexcept {
  if (plan.unit_count == 0) return cudaSuccess;
  const auto measure = [&](auto element) {
    using T = decltype(element);
    const auto kernel = plan.cols < kErrorLanes ? measure_units<T, true> : measure_units<T, false>;
    kernel<<<grid_of(plan.unit_count), kBlockThreads, 0, stream>>>(
        plan, Divisor(plan.units_per_row, plan.unit_count), static_cast<const T*>(x),
        static_cast<const T*>(y), partials);
    return cudaGetLastError();
  };
  return plan.dtype == DType::kFloat64 ? measure(double()) : with_lossy_type(plan.dtype, measure);
}

}  // namespace qvlmem
