// SPDX-License-Identifier: Apache-2.0
// x is read once, and once more where the sample's scale does not stand.
#include "kernels/base/device.cuh"
#include "kernels/half/half_cuda.h"
#include "kernels/half/half_math.h"

namespace qvlmem {
namespace {

// Elements of a thread, in vectors that lie a block's width apart: so many loads are on their way
// at once.
constexpr int kItems = 16;
// Blocks that encode again, or find that they need not: few, for they mostly need not.
constexpr int64_t kAgainBlocks = 1024;

// Largest finite magnitudes so far, as words.
struct Magnitudes {
  uint32_t sampled, whole;
};
static_assert(sizeof(Magnitudes) == kHalfWorkspaceBytes, "what the header says");

// A finite magnitude as a word that grows with it and tells all that half_settle_exponent asks: of
// a double its upper half, the last bit set where the lower is not 0. 0 for what is not finite.
__device__ inline uint32_t magnitude_word(float value) {
  const uint32_t word = float_to_bits(value) & 0x7fffffffu;
  return word < 0x7f800000u ? word : 0u;
}
__device__ inline uint32_t magnitude_word(double value) {
  const uint64_t bits = double_to_bits(value);
  const uint32_t word = static_cast<uint32_t>(bits >> 32) & 0x7fffffffu;
  const uint32_t rest = static_cast<uint32_t>(bits) != 0 ? 1u : 0u;
  return word < 0x7ff00000u ? word | rest : 0u;
}

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
  __device__ static double magnitude(uint32_t word) { return double{bits_to_float(word)}; }
};
template <>
struct Scaling<double> {
  using Wide = double;
  static constexpr DType kDType = DType::kFloat64;
  __device__ static double magnitude(uint32_t word) {
    return bits_to_double(static_cast<uint64_t>(word) << 32);
  }
};

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
  raise(index < numel ? magnitude_word(to_wide(x[index])) : 0u, &known->sampled);
}

// The tensor cut into tiles of kItems for each thread of a block.
struct TileShape {
  int64_t numel, tiles;
  bool vectors;
};

// x and y: what is read and written, V elements of so many bytes at a time.
TileShape tile_shape(int64_t numel, int V, const void* x, int64_t x_bytes, const void* y,
                     int64_t y_bytes) {
  return {numel, ceil_div(numel, int64_t{kItems} * kBlockThreads),
          is_aligned(x, V * x_bytes) && is_aligned(y, V * y_bytes)};
}

// Of this thread's vector c of a tile: its first element, and how many are in the tensor.
template <int V>
struct TileVector {
  int64_t first;
  int n;
  __device__ TileVector(const TileShape& shape, int64_t tile, int c)
      : first(((tile * (kItems / V) + c) * kBlockThreads + threadIdx.x) * V),
        n(static_cast<int>(max(min(shape.numel - first, int64_t{V}), int64_t{0}))) {}
};

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
    T values[kItems / V][V];
#pragma unroll
    for (int c = 0; c < kItems / V; ++c) {
      const TileVector<V> at(shape, tile, c);
      load_elements<V>(x + at.first, at.n, shape.vectors, values[c]);
    }
#pragma unroll
    for (int c = 0; c < kItems / V; ++c) {
      const TileVector<V> at(shape, tile, c);
      Half encoded[V];
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const Wide value = to_wide(values[c][k]);
        if (!kAgain) top = max(top, magnitude_word(value));
        encoded[k] = half_encode_value(value, inverse);
      }
      store_elements<V>(encoded, at.n, shape.vectors, half + at.first);
    }
  }
  if (!kAgain) raise(top, &known->whole);
}

__global__ void set_one(float* scale) { *scale = 1.0f; }

template <class T, class Scale>
__global__ void __launch_bounds__(kBlockThreads)
    decode_halves(TileShape shape, const Half* half, const Scale* scale, T* y) {
  constexpr int V = kVector<T>;
  const double wide = *scale;
  const float narrow = static_cast<float>(wide);
  const bool fits = sizeof(T) < 8 && double{narrow} == wide;
  Half values[kItems / V][V];
#pragma unroll
  for (int c = 0; c < kItems / V; ++c) {
    const TileVector<V> at(shape, blockIdx.x, c);
    load_elements<V>(half + at.first, at.n, shape.vectors, values[c]);
  }
#pragma unroll
  for (int c = 0; c < kItems / V; ++c) {
    const TileVector<V> at(shape, blockIdx.x, c);
    T decoded[V];
#pragma unroll
    for (int k = 0; k < V; ++k) {
      if constexpr (sizeof(T) < 8) {
        decoded[k] = fits ? half_decode_value<T>(values[c][k], narrow)
                          : half_decode_value<T>(values[c][k], wide);
      } else {
        decoded[k] = half_decode_value<T>(values[c][k], wide);
      }
    }
    store_elements<V>(decoded, at.n, shape.vectors, y + at.first);
  }
}

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

template <class F>
cudaError_t with_type(DType dtype, const F& f) {
  return dtype == DType::kFloat64 ? f(double()) : with_lossy_type(dtype, f);
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

cudaError_t half_decode_cuda(const HalfPlan& plan, const void* half, const void* scale,
                             DType scale_dtype, void* y, cudaStream_t stream) noexcept {
  if (plan.numel == 0) return cudaSuccess;
  return with_type(plan.dtype, [&](auto element) {
    using T = decltype(element);
    const TileShape shape = tile_shape(plan.numel, kVector<T>, half, sizeof(Half), y, sizeof(T));
    const auto decode = [&](const auto* factor) {
      decode_halves<<<blocks_for(shape.tiles * kBlockThreads), kBlockThreads, 0, stream>>>(
          shape, static_cast<const Half*>(half), factor, static_cast<T*>(y));
      return cudaGetLastError();
    };
    return scale_dtype == DType::kFloat64 ? decode(static_cast<const double*>(scale))
                                          : decode(static_cast<const float*>(scale));
  });
}

}  // namespace qvlmem
