// SPDX-License-Identifier: Apache-2.0
#include "kernels/half/half_device.cuh"

namespace qvlmem {
namespace {

// A number in y's type. REQUIRES: it is within the type's range.
template <class T>
__device__ inline T narrowed(float value);
template <>
__device__ inline float narrowed<float>(float value) {
  return value;
}
template <>
__device__ inline Half narrowed<Half>(float value) {
  return number_to_half(value);
}
template <>
__device__ inline BFloat16 narrowed<BFloat16>(float value) {
  return number_to_bfloat16(value);
}

// half_decode_value of V elements, where all of them and the scale are finite: without asking of
// each. False where one is not; then nothing is decoded.
template <class T, int V>
__device__ inline bool decode_finite(const Half* half, float scale, T* y) {
  float value[V], probe = 0.0f;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    value[k] = number_to_float(half[k]);
    probe = fmaf(value[k], 0.0f, probe);  // NaN from an infinity or a NaN on
  }
  if (probe != 0.0f) return false;
  constexpr float kLimit = HalfOutput<T>::kLimit;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    y[k] = narrowed<T>(fminf(fmaxf(value[k] * scale, -kLimit), kLimit));
  }
  return true;
}

template <class T, class Scale>
__global__ void __launch_bounds__(kBlockThreads)
    decode_halves(TileShape shape, const Half* half, const Scale* scale, T* y) {
  constexpr int V = kVector<T>;
  const double wide = *scale;
  Half values[kHalfItems / V][V];
#pragma unroll
  for (int c = 0; c < kHalfItems / V; ++c) {
    const TileVector<V> at(shape, blockIdx.x, c);
    load_elements<V>(half + at.first, at.n, shape.vectors, values[c]);
  }
#pragma unroll
  for (int c = 0; c < kHalfItems / V; ++c) {
    const TileVector<V> at(shape, blockIdx.x, c);
    T decoded[V];
    if constexpr (sizeof(T) < 8) {
      const float narrow = static_cast<float>(wide);
      const bool fits = double{narrow} == wide;
      if (!(fits && is_finite(narrow) && decode_finite<T, V>(values[c], narrow, decoded))) {
#pragma unroll
        for (int k = 0; k < V; ++k) {
          decoded[k] = fits ? half_decode_value<T>(values[c][k], narrow)
                            : half_decode_value<T>(values[c][k], wide);
        }
      }
    } else {
#pragma unroll
      for (int k = 0; k < V; ++k) decoded[k] = half_decode_value<T>(values[c][k], wide);
    }
    store_elements<V>(decoded, at.n, shape.vectors, y + at.first);
  }
}

template <class F>
cudaError_t with_type(DType dtype, const F& f) {
  return dtype == DType::kFloat64 ? f(double()) : with_lossy_type(dtype, f);
}

}  // namespace

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
