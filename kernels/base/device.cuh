// SPDX-License-Identifier: Apache-2.0
// What CUDA kernels share: launch shapes, division by a constant, reductions, vectors of 16 bytes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/base/checked.h"
#include "kernels/base/dtype.h"
#include "kernels/base/float_bits.h"

namespace qvlmem {

constexpr int kWarpLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kBlockThreads = 256;

// Blocks for `threads` threads in all. A grid holds 2^31 - 1 blocks: more elements than memory
// does.
inline dim3 blocks_for(int64_t threads) {
  return dim3(static_cast<unsigned>(ceil_div(threads, kBlockThreads)));
}

// Quotients by a divisor that is the same all through a launch: of numbers below 2^31 by one
// multiplication (Granlund and Montgomery, "Division by invariant integers using multiplication",
// PLDI 1994, figure 4.1), of larger ones by dividing.
class Divisor {
 public:
  // REQUIRES: divisor > 0; no dividend above largest_dividend.
  Divisor(int64_t divisor, int64_t largest_dividend)
      : divisor_(divisor), narrow_(largest_dividend >> 31 == 0 && divisor >> 31 == 0) {
    if (!narrow_) return;
    while ((int64_t{1} << shift_) < divisor) ++shift_;
    const uint64_t excess = (uint64_t{1} << shift_) - static_cast<uint64_t>(divisor);
    multiplier_ = static_cast<uint32_t>((excess << 32) / static_cast<uint64_t>(divisor)) + 1;
  }

  QVLMEM_HD int64_t value() const { return divisor_; }

  __device__ int64_t quotient(int64_t n) const {
    if (!narrow_) return n / divisor_;
    const uint32_t dividend = static_cast<uint32_t>(n);
    return (__umulhi(dividend, multiplier_) + dividend) >> shift_;
  }

  // The quotient; *n becomes the remainder.
  __device__ int64_t split(int64_t* n) const {
    const int64_t q = quotient(*n);
    *n -= q * divisor_;
    return q;
  }

 private:
  int64_t divisor_;
  bool narrow_;
  uint32_t multiplier_ = 1;
  int shift_ = 0;
};

// Elements that one load of 16 bytes brings.
template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// Values [0, n) of the vector at x as float32, the rest as zeros. vectors: x is aligned to 16
// bytes.
template <class T>
__device__ inline void load_vector(const T* x, int n, bool vectors, float* values) {
  constexpr int V = kVector<T>;
  if (vectors && n >= V) {
    union {
      uint4 raw;
      T element[V];
    } in;
    in.raw = *reinterpret_cast<const uint4*>(x);
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] = to_float(in.element[i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < V; ++i) values[i] = i < n ? to_float(x[i]) : 0.0f;
}

// Stores the first n of V elements; as one word where words says that `to` is aligned to their
// bytes.
template <int V, class T>
__device__ inline void store_elements(const T* from, int n, bool words, T* to) {
  if (words && n >= V) {
    struct alignas(V * sizeof(T)) Word {
      T element[V];
    } word;
#pragma unroll
    for (int i = 0; i < V; ++i) word.element[i] = from[i];
    *reinterpret_cast<Word*>(to) = word;
    return;
  }
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (i < n) to[i] = from[i];
  }
}

// The first n of V elements; the rest are zeros.
template <int V, class T>
__device__ inline void load_elements(const T* from, int n, bool words, T* to) {
  if (words && n >= V) {
    struct alignas(V * sizeof(T)) Word {
      T element[V];
    };
    const Word word = *reinterpret_cast<const Word*>(from);
#pragma unroll
    for (int i = 0; i < V; ++i) to[i] = word.element[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = i < n ? from[i] : T{};
}

inline bool is_aligned(const void* p, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

// The maximum over each run of kTeam lanes of a warp, in all of them. REQUIRES: the whole warp.
template <int kTeam>
__device__ inline uint32_t team_max(uint32_t value) {
#pragma unroll
  for (int step = kTeam / 2; step > 0; step /= 2) {
    value = max(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  return value;
}

// Calls f(T()) with the type of one of the three dtypes that the lossy codecs take.
template <class F>
auto with_lossy_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat16:
      return f(Half());
    case DType::kBFloat16:
      return f(BFloat16());
    default:
      return f(float());
  }
}

}  // namespace qvlmem
