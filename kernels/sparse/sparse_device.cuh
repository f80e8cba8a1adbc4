// SPDX-License-Identifier: Apache-2.0
// What the kernels of sparse share: tiles of elements in registers, scans, and what one kernel
// leaves for the next in device memory.
#pragma once

#include "kernels/base/device.cuh"
#include "kernels/sparse/sparse_cuda.h"

namespace qvlmem {

// Elements that a block takes at a time: each warp a run of them, each thread kHeld in registers.
constexpr int kSparseTile = 4096;
constexpr int kSparseHeld = kSparseTile / kBlockThreads;
constexpr int kSparseWarps = kBlockThreads / kWarpLanes;
constexpr int kUnitTiles = static_cast<int>(kSparseUnit) / kSparseTile;

// Counts of the elements of a tile above the cut (low 16 bits) and at it (high 16 bits), so that
// one addition adds both.
static_assert(kSparseTile < (1 << 16), "both counts of a tile fit in 32 bits");
constexpr uint32_t kOneAbove = 1, kOneTie = 1u << 16;

// What is stored: elements above cut, and the first `ties` of those equal to it.
struct SparseCutRule {
  uint32_t key_mask, cut;
  int64_t ties;
};

// Elements before a tile.
struct alignas(16) SparseBefore {
  int64_t above, ties;
};

// The head of the workspace. Behind it: SparseBefore[tile_count + 1], uint32_t[tile_count].
struct alignas(16) SparseState {
  unsigned long long below, bins[kSparseBins];  // the histogram of `range`
  SparseKeyRange range;
  SparseCut cut;
  int32_t is_found;      // cut is the key that was looked for
  uint32_t blocks_done;  // of the histogram
  SparseCutRule rule;
};

struct SparseWorkspace {
  SparseState* state;
  SparseBefore* before;
  uint32_t* counts;
};

inline int64_t sparse_tile_count(const SparsePlan& plan) {
  return ceil_div(plan.numel, kSparseTile);
}

inline SparseWorkspace sparse_workspace(const SparsePlan& plan, void* bytes) {
  SparseWorkspace w;
  w.state = static_cast<SparseState*>(bytes);
  w.before = reinterpret_cast<SparseBefore*>(w.state + 1);
  w.counts = reinterpret_cast<uint32_t*>(w.before + sparse_tile_count(plan) + 1);
  return w;
}

// Leaves the key of rank `target` in state->cut. Asynchronous; REQUIRES: state zeroed, 1 <= target
// <= plan.numel.
cudaError_t sparse_search_cuda(const SparsePlan& plan, const void* x, int64_t target,
                               SparseState* state, cudaStream_t stream) noexcept;

// Where the i-th vector that a thread holds begins in its tile.
template <class Bits>
__device__ inline int held_begin(int i) {
  constexpr int V = kVector<Bits>;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  return warp * (kSparseTile / kSparseWarps) + (i * kWarpLanes + lane) * V;
}

// The thread's elements of a tile that holds n; zeros, which are never stored, beyond.
template <class Bits>
__device__ inline void load_tile(const Bits* tile, int n, bool vectors, Bits* held) {
  constexpr int V = kVector<Bits>;
#pragma unroll
  for (int i = 0; i < kSparseHeld / V; ++i) {
    const int begin = held_begin<Bits>(i);
    load_elements<V>(tile + begin, n - begin, vectors, held + i * V);
  }
}

__device__ inline int tile_numel(int64_t numel, int64_t tile) {
  return static_cast<int>(min(static_cast<int64_t>(kSparseTile), numel - tile * kSparseTile));
}

// The sum over the lanes up to this one. REQUIRES: the whole warp.
template <class T>
__device__ inline T warp_inclusive_sum(T value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
#pragma unroll
  for (int step = 1; step < kWarpLanes; step *= 2) {
    const T other = __shfl_up_sync(kAllLanes, value, step);
    if (lane >= step) value += other;
  }
  return value;
}

// The sum over the threads before this one; *total becomes that over all. REQUIRES: all kThreads of
// the block; a barrier between two calls.
template <int kThreads, class T>
__device__ inline T block_exclusive_sum(T value, T* total) {
  constexpr int kWarps = kThreads / kWarpLanes;
  __shared__ T of_warp[kWarps];
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const T inclusive = warp_inclusive_sum(value);
  if (lane == kWarpLanes - 1) of_warp[warp] = inclusive;
  __syncthreads();
  T before = 0, sum = 0;
  for (int w = 0; w < kWarps; ++w) {
    const T other = of_warp[w];
    if (w < warp) before += other;
    sum += other;
  }
  *total = sum;
  return before + inclusive - value;
}

// Calls f(Bits()) with the type of an element's bits.
template <class F>
auto with_bits(const SparsePlan& plan, const F& f) {
  return plan.element_bytes == 4 ? f(uint32_t()) : f(uint16_t());
}

}  // namespace qvlmem
