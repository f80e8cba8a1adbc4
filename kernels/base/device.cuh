// SPDX-License-Identifier: Apache-2.0
// What CUDA kernels share: launch shapes, division by a constant, reductions, vectors of 16 bytes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/base/checked.h"
#include "kernels/base/dtype.h"
#include "kernels/base/float64_bits.h"
#include "kernels/base/float_bits.h"

namespace qvlmem {

constexpr int kWarpLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kBlockThreads = 256;

// A grid of so many blocks. It holds 2^31 - 1: where that is not enough the launch fails, rather
// than begin with what is left of the number.
inline dim3 grid_of(int64_t blocks) {
  constexpr int64_t kTooMany = int64_t{1} << 31;
  return dim3(static_cast<unsigned>(blocks < kTooMany ? blocks : kTooMany));
}

// Blocks for `threads` threads in all.
inline dim3 blocks_for(int64_t threads) { return grid_of(ceil_div(threads, kBlockThreads)); }

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

// A word that moves so many bytes at once. hold() keeps it one in registers: the optimizer else
// splits it, to share its last element's access with the code for tails.
template <int kBytes>
struct WordOf {};
template <>
struct WordOf<16> {
  using Type = uint4;
  __device__ static void hold(uint4* w) {
    asm volatile("" : "+r"(w->x), "+r"(w->y), "+r"(w->z), "+r"(w->w)::"memory");
  }
};
template <>
struct WordOf<8> {
  using Type = uint2;
  __device__ static void hold(uint2* w) { asm volatile("" : "+r"(w->x), "+r"(w->y)::"memory"); }
};
template <>
struct WordOf<4> {
  using Type = uint32_t;
  __device__ static void hold(uint32_t* w) { asm volatile("" : "+r"(*w)::"memory"); }
};
template <>
struct WordOf<2> {
  using Type = uint16_t;
  __device__ static void hold(uint16_t* w) { asm volatile("" : "+h"(*w)::"memory"); }
};

// Stores the first n of V elements; as one word where words says that `to` is aligned to their
// bytes.
template <int V, class T>
__device__ inline void store_elements(const T* from, int n, bool words, T* to) {
  if (words && n >= V) {
    using Word = WordOf<V* static_cast<int>(sizeof(T))>;
    typename Word::Type word;
    memcpy(&word, from, sizeof(word));
    *reinterpret_cast<typename Word::Type*>(to) = word;
    Word::hold(&word);
    return;
  }
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (i < n) to[i] = from[i];
  }
}

// The first n of V elements; the rest are zeros. words: as store_elements.
template <int V, class T>
__device__ inline void load_elements(const T* from, int n, bool words, T* to) {
  if (words && n >= V) {
    using Word = WordOf<V* static_cast<int>(sizeof(T))>;
    typename Word::Type word = *reinterpret_cast<const typename Word::Type*>(from);
    Word::hold(&word);
    memcpy(to, &word, sizeof(word));
    return;
  }
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = i < n ? from[i] : T{};
}

// Values [0, n) of the vector at x as float32, the rest as zeros. vectors: x is aligned to 16
// bytes.
template <class T>
__device__ inline void load_vector(const T* x, int n, bool vectors, float* values) {
  T elements[kVector<T>];
  load_elements<kVector<T>>(x, n, vectors, elements);
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) values[i] = to_float(elements[i]);
}

inline bool is_aligned(const void* p, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

// A magnitude as a word that grows with it: of a double its upper half, the last bit set where the
// lower is not 0. So it tells a magnitude's exponent, whether it is 0, and how it compares with any
// number that has few bits.
__device__ inline uint32_t magnitude_word(float value) {
  return float_to_bits(value) & 0x7fffffffu;
}
__device__ inline uint32_t magnitude_word(double value) {
  const uint64_t bits = double_to_bits(value);
  const uint32_t rest = static_cast<uint32_t>(bits) != 0 ? 1u : 0u;
  return (static_cast<uint32_t>(bits >> 32) & 0x7fffffffu) | rest;
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
