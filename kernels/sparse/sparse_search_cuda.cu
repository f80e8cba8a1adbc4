// SPDX-License-Identifier: Apache-2.0
// The search of the magnitude to cut at, without a word to the host: as many passes as the search
// can take are launched, and those that come after its end return at once.
#include "kernels/sparse/sparse_device.cuh"

namespace qvlmem {
namespace {

// A wrong first range takes one pass, and every 31-bit key three.
constexpr int kMostPasses = 4;
// More blocks add more to the histogram in memory, and no speed.
constexpr int64_t kMostBlocks = 1024;
constexpr int kBinsEach = kSparseBins / kBlockThreads;

struct FoundBin {
  uint32_t bin;
  int64_t below, count;  // keys in the bins before it, and in it
};

// The bin with the rank-th of the keys that the block counted, kBinsEach bins a thread: true in the
// thread that the bin is of. *total: all keys. REQUIRES: the whole block; a barrier between two
// calls.
template <class Count>
__device__ inline bool find_bin(const Count (&mine)[kBinsEach], int64_t rank, FoundBin* found,
                                int64_t* total) {
  int64_t sum = 0;
#pragma unroll
  for (int k = 0; k < kBinsEach; ++k) sum += mine[k];
  int64_t below = block_exclusive_sum<kBlockThreads>(sum, total);
  if (rank <= below || rank > below + sum) return false;
#pragma unroll
  for (int k = 0; k < kBinsEach; ++k) {
    if (rank > below && rank <= below + mine[k]) {
      *found = {threadIdx.x * kBinsEach + k, below, mine[k]};
    }
    below += mine[k];
  }
  return true;
}

// The first range, from a histogram of the sample over all keys.
template <class Bits>
__global__ void __launch_bounds__(kBlockThreads)
    sample_kernel(SparseSampling sampling, int64_t numel, const Bits* x, uint32_t key_mask,
                  SparseState* state) {
  __shared__ uint32_t bins[kSparseBins];
  __shared__ uint32_t low, high;
  for (int b = threadIdx.x; b < kSparseBins; b += kBlockThreads) bins[b] = 0;
  if (threadIdx.x == 0) low = 1, high = key_mask;
  __syncthreads();
  const SparseKeyRange all = sparse_key_range(0, key_mask);
  const int run_place = threadIdx.x % kSparseSampleRun;
  int zeros = 0;
  for (int run = threadIdx.x / kSparseSampleRun; run < sampling.runs;
       run += kBlockThreads / kSparseSampleRun) {
    const int64_t i = sparse_sample_begin(sampling, run) + run_place;
    const uint32_t key = i < numel ? x[i] & key_mask : 1;
    zeros += key == 0;
    if (i < numel && key != 0) atomicAdd(&bins[key >> all.shift], 1u);
  }
  int all_zeros;
  block_exclusive_sum<kBlockThreads>(zeros, &all_zeros);
  __syncthreads();
  uint32_t mine[kBinsEach];
#pragma unroll
  for (int k = 0; k < kBinsEach; ++k) mine[k] = bins[threadIdx.x * kBinsEach + k];
  // Zeros stay below the range: they may be most of the tensor. Where the sample ends, anything may
  // be beyond.
  FoundBin found;
  int64_t total;
  if (find_bin(mine, sampling.place - sampling.margin - all_zeros, &found, &total)) {
    low = max(found.bin << all.shift, 1u);
  }
  __syncthreads();
  if (find_bin(mine, sampling.place + sampling.margin - all_zeros, &found, &total)) {
    high = ((found.bin + 1) << all.shift) - 1;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  const bool is_zero = sampling.place + sampling.margin <= all_zeros;
  state->range = is_zero ? sparse_key_range(1, 1) : sparse_key_range(low, max(low, high));
}

// The step that the histogram of the whole tensor allows; then the state is ready for the next.
__device__ void narrow(int64_t target, SparseState* state) {
  int64_t mine[kBinsEach];
#pragma unroll
  for (int k = 0; k < kBinsEach; ++k) {
    mine[k] = static_cast<int64_t>(atomicExch(&state->bins[threadIdx.x * kBinsEach + k], 0ull));
  }
  const int64_t under =
      static_cast<int64_t>(*const_cast<volatile unsigned long long*>(&state->below));
  SparseKeyRange range = state->range;
  SparseCut cut{};
  FoundBin found;
  int64_t total;
  bool done = false;
  if (find_bin(mine, target - under, &found, &total)) {
    done = sparse_narrow_to_bin(found.bin, under + found.below, found.count, &range, &cut);
  } else if (threadIdx.x == 0 && target <= under) {
    done = sparse_narrow_below(under, &range, &cut);
  } else if (threadIdx.x == 0 && target > under + total) {
    sparse_narrow_above(&range);
  } else {
    return;
  }
  state->range = range;
  state->cut = cut;
  state->is_found = done;
  state->below = 0;
  state->blocks_done = 0;
}

// Counts the keys of a range, and the last block to end takes the step.
template <class Bits>
__global__ void __launch_bounds__(kBlockThreads)
    histogram_kernel(int64_t numel, int64_t tile_count, const Bits* x, bool vectors,
                     uint32_t key_mask, int64_t target, SparseState* state) {
  __shared__ uint32_t bins[kSparseBins];
  __shared__ bool is_last;
  if (state->is_found) return;
  const SparseKeyRange range = state->range;
  for (int b = threadIdx.x; b < kSparseBins; b += kBlockThreads) bins[b] = 0;
  __syncthreads();
  int64_t below = 0;
  for (int64_t tile = blockIdx.x; tile < tile_count; tile += gridDim.x) {
    const int n = tile_numel(numel, tile);
    Bits held[kSparseHeld];
    load_tile(x + tile * kSparseTile, n, vectors, held);
    int under = 0;
#pragma unroll
    for (int k = 0; k < kSparseHeld; ++k) {
      const uint32_t key = held[k] & key_mask;
      // No bin for keys below the range either: wrapped, they are beyond any.
      const uint32_t bin = (key - range.low) >> range.shift;
      under += key < range.low;
      if (bin < kSparseBins) atomicAdd(&bins[bin], 1u);
    }
    below += under;
    if (n < kSparseTile && threadIdx.x == 0) {  // zeros beyond the tensor were counted too
      const uint32_t beyond = static_cast<uint32_t>(kSparseTile - n);
      if (range.low > 0) {
        below -= beyond;
      } else {
        atomicSub(&bins[0], beyond);
      }
    }
  }
  int64_t all_below;
  block_exclusive_sum<kBlockThreads>(below, &all_below);
  if (threadIdx.x == 0 && all_below > 0) {
    atomicAdd(&state->below, static_cast<unsigned long long>(all_below));
  }
  for (int b = threadIdx.x; b < kSparseBins; b += kBlockThreads) {
    if (bins[b] != 0) atomicAdd(&state->bins[b], static_cast<unsigned long long>(bins[b]));
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(&state->blocks_done, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  narrow(target, state);
}

}  // namespace

cudaError_t sparse_search_cuda(const SparsePlan& plan, const void* x, int64_t target,
                               SparseState* state, cudaStream_t stream) noexcept {
  return with_bits(plan, [&](auto bits) {
    using Bits = decltype(bits);
    const Bits* const elements = static_cast<const Bits*>(x);
    const uint32_t key_mask = sparse_magnitude_mask(plan.dtype);
    const int64_t tiles = sparse_tile_count(plan);
    sample_kernel<Bits><<<1, kBlockThreads, 0, stream>>>(sparse_sampling(plan.numel, target),
                                                         plan.numel, elements, key_mask, state);
    for (int pass = 0; pass < kMostPasses; ++pass) {
      const dim3 blocks = grid_of(tiles < kMostBlocks ? tiles : kMostBlocks);
      histogram_kernel<Bits><<<blocks, kBlockThreads, 0, stream>>>(
          plan.numel, tiles, elements, is_aligned(x, 16), key_mask, target, state);
    }
    return cudaGetLastError();
  });
}

}  // namespace qvlmem
