// SPDX-License-Identifier: Apache-2.0
// x is read once, and once more where the sample's scale does not stand.
#include "kernels/half/half_device.cuh"

namespace qvlmem {
namespace {

// Blocks that encode again, or find that they need not: few, for they mostly need not.
constexpr int64_t kAgainBlocks = 1024;

// Largest finite magnitudes so far, as words: they tell all that half_settle_exponent asks.
struct Magnitudes {
  uint32_t sampled, whole;
};
static_assert(sizeof(Magnitudes) == kHalfWorkspaceBytes, "what the header says");

// What is computed in: float64 for float64, else float32.
__device__ inline double to_wide(double value) { return value; }
template <class T>
__device__ inline float to_wide(T value) {
  return to_float(value);
}

// How x's type is scaled.
template <class T>
struct Scaling {
  using Wide = float;
  static constexpr DType kDType = DType::kFloat32;
  static constexpr uint32_t kInfinity = 0x7f800000u;  // its word; NaN are above
  __device__ static double magnitude(uint32_t word) { return double{bits_to_float(word)}; }
};
template <>
struct Scaling<double> {
  using Wide = double;
  static constexpr DType kDType = DType::kFloat64;
  static constexpr uint32_t kInfinity = 0x7ff00000u;
  __device__ static double magnitude(uint32_t word) {
    return bits_to_double(static_cast<uint64_t>(word) << 32);
  }
};

template <class T>
__device__ inline uint32_t finite_or_zero(uint32_t word) {
  return word < Scaling<T>::kInfinity ? word : 0u;
}

// half_encode_value of a finite value.
__device__ inline Half encode_finite(float value, float inverse) {
  return number_to_half(value * inverse);
}
__device__ inline Half encode_finite(double value, double inverse) {
  return to_half(value * inverse);
}

template <class T>
__device__ inline int proposed_exponent(const Magnitudes& known) {
  return half_exponent_for(Scaling<T>::kDType, Scaling<T>::magnitude(known.sampled),
                           kHalfProposedExponent);
}

// Raises *target. Most warps find it as large already, and need no atomic.
__device__ inline void raise(uint32_t word, uint32_t* target) {
  word = team_max<kWarpLanes>(word);
  if (threadIdx.x % kWarpLanes == 0 && word > *static_cast<volatile uint32_t*>(target)) {
    atomicMax(target, word);
  }
}

// A thread an element of the sample.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    sample_magnitude(int64_t numel, const T* x, Magnitudes* known) {
  const int s = static_cast<int>(blockIdx.x * kBlockThreads + threadIdx.x);
  int64_t index = s;
  if (numel > kHalfSampleAll && s >= kHalfSampleHead) {
    const int in_runs = s - static_cast<int>(kHalfSampleHead);
    index = half_sample_begin(numel, in_runs / kHalfSampleRun) + in_runs % kHalfSampleRun;
  }
  const uint32_t word = index < numel ? magnitude_word(to_wide(x[index])) : 0u;
  raise(finite_or_zero<T>(word), &known->sampled);
}

// Encodes with the proposed scale and finds the whole magnitude; or, kAgain, with the settled scale
// where that is another, and writes the scale.
template <class T, bool kAgain>
__global__ void __launch_bounds__(kBlockThreads)
    encode_halves(TileShape shape, const T* x, Magnitudes* known, Half* half,
                  typename Scaling<T>::Wide* scale) {
  using Wide = typename Scaling<T>::Wide;
  constexpr int V = kVector<T>;
  int exponent = proposed_exponent<T>(*known);
  if (kAgain) {
    const int settled =
        half_settle_exponent(Scaling<T>::kDType, exponent, Scaling<T>::magnitude(known->whole));
    if (blockIdx.x == 0 && threadIdx.x == 0) *scale = static_cast<Wide>(power_of_two(settled));
    if (settled == exponent) return;
    exponent = settled;
  }
  const Wide inverse = static_cast<Wide>(power_of_two(-exponent));
  uint32_t top = 0;
  for (int64_t tile = blockIdx.x; tile < shape.tiles; tile += gridDim.x) {
    T values[kHalfItems / V][V];
#pragma unroll
    for (int c = 0; c < kHalfItems / V; ++c) {
      const TileVector<V> at(shape, tile, c);
      load_elements<V>(x + at.first, at.n, shape.vectors, values[c]);
    }
#pragma unroll
    for (int c = 0; c < kHalfItems / V; ++c) {
      const TileVector<V> at(shape, tile, c);
      Half encoded[V];
      uint32_t highest = 0;
#pragma unroll
      for (int k = 0; k < V; ++k) highest = max(highest, magnitude_word(to_wide(values[c][k])));
      if (highest < Scaling<T>::kInfinity) {
        top = max(top, highest);
#pragma unroll
        for (int k = 0; k < V; ++k) encoded[k] = encode_finite(to_wide(values[c][k]), inverse);
      } else {
#pragma unroll
        for (int k = 0; k < V; ++k) {
          const Wide value = to_wide(values[c][k]);
          top = max(top, finite_or_zero<T>(magnitude_word(value)));
          encoded[k] = half_encode_value(value, inverse);
        }
      }
      store_elements<V>(encoded, at.n, shape.vectors, half + at.first);
    }
  }
  if (!kAgain) raise(top, &known->whole);
}

__global__ void set_one(float* scale) { *scale = 1.0f; }

template <class T>
cudaError_t encode(const HalfPlan& plan, const T* x, Half* half, void* scale, Magnitudes* known,
                   cudaStream_t stream) {
  const cudaError_t cleared = cudaMemsetAsync(known, 0, sizeof(Magnitudes), stream);
  if (cleared != cudaSuccess) return cleared;
  auto* const out = static_cast<typename Scaling<T>::Wide*>(scale);
  const TileShape shape = tile_shape(plan.numel, kVector<T>, x, sizeof(T), half, sizeof(Half));
  if (plan.numel > 0) {
    const int64_t sample = plan.numel < kHalfSampleAll ? plan.numel : kHalfSampleAll;
    sample_magnitude<<<blocks_for(sample), kBlockThreads, 0, stream>>>(plan.numel, x, known);
    encode_halves<T, false><<<blocks_for(shape.tiles * kBlockThreads), kBlockThreads, 0, stream>>>(
        shape, x, known, half, out);
  }
  int64_t again = shape.tiles < kAgainBlocks ? shape.tiles : kAgainBlocks;
  if (again == 0) again = 1;  // for the scale
  encode_halves<T, true>
      <<<blocks_for(again * kBlockThreads), kBlockThreads, 0, stream>>>(shape, x, known, half, out);
  return cudaGetLastError();
}

}  // namespace

cudaError_t half_encode_cuda(const HalfPlan& plan, const void* x, void* half, void* scale,
                             void* workspace, cudaStream_t stream) noexcept {
  if (plan.dtype == DType::kFloat16) {
    set_one<<<1, 1, 0, stream>>>(static_cast<float*>(scale));
    const cudaError_t launched = cudaGetLastError();
    if (launched != cudaSuccess || plan.numel == 0) return launched;
    return cudaMemcpyAsync(half, x, static_cast<size_t>(plan.numel) * sizeof(Half),
                           cudaMemcpyDeviceToDevice, stream);
  }
  const auto run = [&](auto element) {
    using T = decltype(element);
    return encode(plan, static_cast<const T*>(x), static_cast<Half*>(half), scale,
                  static_cast<Magnitudes*>(workspace), stream);
  };
  if (plan.dtype == DType::kFloat64) return run(double());
  return plan.dtype == DType::kBFloat16 ? run(BFloat16()) : run(float());
}

}  // namespace qvlmem
