// SPDX-License-Identifier: Apache-2.0
// Storing: elements are counted tile by tile, the counts summed to places, and the elements
// compacted in shared memory and written in runs.
#include "kernels/sparse/sparse_device.cuh"

namespace qvlmem {
namespace {

constexpr int kScanThreads = 1024;
constexpr int kStoreBlocks =
    3;  // on a multiprocessor at once: as many as fit in registers without spills
constexpr int kTileBlocks = kSparseTile / static_cast<int>(kSparseBlock);

__device__ inline uint32_t count_of(uint32_t key, uint32_t cut) {
  return key > cut ? kOneAbove : key == cut ? kOneTie : 0u;
}

template <class Bits>
__global__ void __launch_bounds__(kBlockThreads)
    count_kernel(int64_t numel, const Bits* x, bool vectors, uint32_t key_mask,
                 uint32_t largest_taken, const SparseState* state, uint32_t* counts,
                 SparseFound* found) {
  __shared__ uint32_t of_warp[kSparseWarps];
  const int64_t tile = blockIdx.x;
  Bits held[kSparseHeld];
  load_tile(x + tile * kSparseTile, tile_numel(numel, tile), vectors, held);
  const uint32_t cut = state->cut.key;
  uint32_t count = 0, largest = 0;
#pragma unroll
  for (int k = 0; k < kSparseHeld; ++k) {
    const uint32_t key = held[k] & key_mask;
    count += count_of(key, cut);
    largest = max(largest, key);
  }
  if (largest > largest_taken) found->non_finite = 1;
#pragma unroll
  for (int step = kWarpLanes / 2; step > 0; step /= 2) {
    count += __shfl_xor_sync(kAllLanes, count, step);
  }
  if (threadIdx.x % kWarpLanes == 0) of_warp[threadIdx.x / kWarpLanes] = count;
  __syncthreads();
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int w = 1; w < kSparseWarps; ++w) count += of_warp[w];
  counts[tile] = count;
}

// One block: a tensor has some hundred thousand tiles at most.
__global__ void __launch_bounds__(kScanThreads)
    scan_kernel(int64_t tile_count, const uint32_t* counts, uint32_t key_mask, int64_t target,
                SparseBefore* before, SparseState* state, SparseFound* found) {
  static_assert(int64_t{kScanThreads} * kSparseTile < (int64_t{1} << 32),
                "the counts of a round fit in 32 bits");
  int64_t above = 0, ties = 0;
  for (int64_t round = 0; round < tile_count; round += kScanThreads) {
    const int64_t tile = round + threadIdx.x;
    const unsigned long long count = tile < tile_count ? counts[tile] : 0;
    unsigned long long total;  // above in the low half, ties in the high
    const unsigned long long prefix =
        block_exclusive_sum<kScanThreads>((count & 0xffffull) | count >> 16 << 32, &total);
    if (tile < tile_count) {
      before[tile] = {above + static_cast<int64_t>(prefix & 0xffffffffull),
                      ties + static_cast<int64_t>(prefix >> 32)};
    }
    above += static_cast<int64_t>(total & 0xffffffffull);
    ties += static_cast<int64_t>(total >> 32);
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  before[tile_count] = {above, ties};
  const SparseCut cut = state->cut;
  // Zeros are not stored anyway; of others with this magnitude the first few may have to stay.
  const int64_t staying = cut.key == 0 ? 0 : max(cut.below + cut.equal - target, int64_t{0});
  state->rule = {key_mask, cut.key, staying};
  found->nnz = above + min(ties, staying);
}

// Stored elements before a tile.
__device__ inline int64_t stored_before(const SparseBefore& before, const SparseCutRule& rule) {
  return before.above + min(before.ties, rule.ties);
}

// A tile's stored elements, in order.
template <class Bits>
struct TileEntries {
  Bits values[kSparseTile];
  uint16_t positions[kSparseTile];  // within the tile
};

// Returns how many. REQUIRES: the whole block; a barrier before the entries are read.
template <class Bits>
__device__ inline int gather_tile(const Bits (&held)[kSparseHeld], const SparseCutRule& rule,
                                  int ties_kept, TileEntries<Bits>* entries) {
  constexpr int V = kVector<Bits>, kRuns = kSparseHeld / V;
  __shared__ uint32_t of_warp[kSparseWarps];
  // Elements come in order of runs, then lanes: before_run[i] is what the warp has before the
  // lane's i-th run.
  uint32_t before_run[kRuns], warp_count = 0;
#pragma unroll
  for (int i = 0; i < kRuns; ++i) {
    uint32_t count = 0;
#pragma unroll
    for (int k = 0; k < V; ++k) count += count_of(held[i * V + k] & rule.key_mask, rule.cut);
    const uint32_t inclusive = warp_inclusive_sum(count);
    before_run[i] = warp_count + inclusive - count;
    warp_count += __shfl_sync(kAllLanes, inclusive, kWarpLanes - 1);
  }
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  if (threadIdx.x % kWarpLanes == 0) of_warp[warp] = warp_count;
  __syncthreads();
  uint32_t before_warp = 0, total = 0;
#pragma unroll
  for (int w = 0; w < kSparseWarps; ++w) {
    before_warp += w < warp ? of_warp[w] : 0u;
    total += of_warp[w];
  }
#pragma unroll
  for (int i = 0; i < kRuns; ++i) {
    const uint32_t before = before_warp + before_run[i];
    int ties = static_cast<int>(before >> 16);
    int slot = static_cast<int>(before & 0xffffu) + min(ties, ties_kept);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const uint32_t key = held[i * V + k] & rule.key_mask;
      const bool is_tie = key == rule.cut;
      if (key > rule.cut || (is_tie && ties < ties_kept)) {
        entries->values[slot] = held[i * V + k];
        entries->positions[slot] = static_cast<uint16_t>(held_begin<Bits>(i) + k);
        ++slot;
      }
      ties += is_tie;
    }
  }
  return static_cast<int>(total & 0xffffu) + min(static_cast<int>(total >> 16), ties_kept);
}

struct StoreShape {
  int64_t numel, tile_count;
  const SparseState* state;
  const SparseBefore* before;
};

// Gathers a tile, and writes values and what `out` makes of the positions.
template <class Bits, class Out>
__global__ void __launch_bounds__(kBlockThreads, kStoreBlocks)
    store_kernel(StoreShape shape, const Bits* x, bool vectors, Out out, Bits* values) {
  __shared__ TileEntries<Bits> entries;
  const int64_t tile = blockIdx.x;
  const int n = tile_numel(shape.numel, tile);
  const SparseCutRule rule = shape.state->rule;
  const SparseBefore before = shape.before[tile];
  const int64_t first = stored_before(before, rule);
  const int room = static_cast<int>(stored_before(shape.before[tile + 1], rule) - first);
  Bits held[kSparseHeld];
  load_tile(x + tile * kSparseTile, n, vectors, held);
  const int64_t ties_left = rule.ties - min(before.ties, rule.ties);
  const int ties_kept = static_cast<int>(min(ties_left, static_cast<int64_t>(kSparseTile)));
  // Of a tensor that has changed since it was counted no more than was counted.
  const int count = min(gather_tile(held, rule, ties_kept, &entries), room);
  __syncthreads();
  Bits* const to = values + first;
#pragma unroll 1
  for (int k = threadIdx.x; k < count; k += kBlockThreads) to[k] = entries.values[k];
  out.write(shape, tile, n, first, count, entries.positions);
}

// ---- What becomes of a tile's positions ----

template <class Index>
struct CooOut {
  Index* indices;

  __device__ void write(const StoreShape&, int64_t tile, int, int64_t first, int count,
                        const uint16_t* positions) const {
    const Index base = static_cast<Index>(tile * kSparseTile);
    Index* const to = indices + first;
#pragma unroll 1
    for (int k = threadIdx.x; k < count; k += kBlockThreads) to[k] = base + positions[k];
  }
};

// The head of every compact form: the count of a unit, by its first tile.
__device__ inline void write_unit_count(const StoreShape& shape, int64_t tile, uint8_t* index) {
  if (threadIdx.x != 0 || tile % kUnitTiles != 0) return;
  const SparseCutRule rule = shape.state->rule;
  const int64_t end = min(tile + kUnitTiles, shape.tile_count);
  const int64_t count =
      stored_before(shape.before[end], rule) - stored_before(shape.before[tile], rule);
  reinterpret_cast<uint16_t*>(index)[tile / kUnitTiles] = static_cast<uint16_t>(count);
}

struct Unit16Out {
  uint8_t* index;
  int64_t positions_offset;

  __device__ void write(const StoreShape& shape, int64_t tile, int, int64_t first, int count,
                        const uint16_t* positions) const {
    uint16_t* const out = reinterpret_cast<uint16_t*>(index + positions_offset) + first;
    const int base = static_cast<int>(tile % kUnitTiles) * kSparseTile;
#pragma unroll 1
    for (int k = threadIdx.x; k < count; k += kBlockThreads) {
      out[k] = static_cast<uint16_t>(base + positions[k]);
    }
    write_unit_count(shape, tile, index);
  }
};

struct Block8Out {
  uint8_t* index;
  int64_t block_counts_offset, full_bits_offset, positions_offset;

  __device__ void write(const StoreShape& shape, int64_t tile, int n, int64_t first, int count,
                        const uint16_t* positions) const {
    __shared__ int begins[kTileBlocks + 1];  // the first entry of each block
    uint8_t* const out = index + positions_offset + first;
#pragma unroll 1
    for (int k = threadIdx.x; k < count; k += kBlockThreads) {
      out[k] = static_cast<uint8_t>(positions[k]);
      const int block = positions[k] / static_cast<int>(kSparseBlock);
      const int last = k == 0 ? -1 : positions[k - 1] / static_cast<int>(kSparseBlock);
      for (int b = last + 1; b <= block; ++b) begins[b] = k;
    }
    const int last = count == 0 ? -1 : positions[count - 1] / static_cast<int>(kSparseBlock);
    if (threadIdx.x <= kTileBlocks && static_cast<int>(threadIdx.x) > last) {
      begins[threadIdx.x] = count;
    }
    __syncthreads();
    const int blocks = (n + static_cast<int>(kSparseBlock) - 1) / static_cast<int>(kSparseBlock);
    if (threadIdx.x < kWarpLanes) {
      const int b = static_cast<int>(threadIdx.x);
      const int held = b < blocks ? begins[b + 1] - begins[b] : 0;
      const unsigned full = __ballot_sync(kAllLanes, held == kSparseBlock);
      if (b < blocks) {
        index[block_counts_offset + tile * kTileBlocks + b] = static_cast<uint8_t>(held);
      }
      if (b < (blocks + 7) / 8) {
        index[full_bits_offset + tile * (kTileBlocks / 8) + b] =
            static_cast<uint8_t>(full >> (8 * b));
      }
    }
    write_unit_count(shape, tile, index);
  }
};

struct BitmaskOut {
  uint8_t* index;
  int64_t mask_offset;

  __device__ void write(const StoreShape& shape, int64_t tile, int n, int64_t, int count,
                        const uint16_t* positions) const {
    constexpr int kWords = kSparseTile / 32;
    __shared__ uint32_t mask[kWords];
    for (int w = threadIdx.x; w < kWords; w += kBlockThreads) mask[w] = 0;
    __syncthreads();
#pragma unroll 1
    for (int k = threadIdx.x; k < count; k += kBlockThreads) {
      atomicOr(&mask[positions[k] / 32], 1u << (positions[k] % 32));
    }
    __syncthreads();
    uint8_t* const out = index + mask_offset + tile * (kSparseTile / 8);
    for (int b = threadIdx.x; b < (n + 7) / 8; b += kBlockThreads) {
      out[b] = static_cast<uint8_t>(mask[b / 4] >> (8 * (b % 4)));
    }
    write_unit_count(shape, tile, index);
  }
};

template <class Out>
cudaError_t store(const SparsePlan& plan, const void* x, const void* workspace, const Out& out,
                  void* values, cudaStream_t stream) {
  if (plan.numel == 0) return cudaSuccess;
  const SparseWorkspace w = sparse_workspace(plan, const_cast<void*>(workspace));
  const int64_t tiles = sparse_tile_count(plan);
  return with_bits(plan, [&](auto bits) {
    using Bits = decltype(bits);
    store_kernel<Bits, Out><<<grid_of(tiles), kBlockThreads, 0, stream>>>(
        StoreShape{plan.numel, tiles, w.state, w.before}, static_cast<const Bits*>(x),
        is_aligned(x, 16), out, static_cast<Bits*>(values));
    return cudaGetLastError();
  });
}

}  // namespace

int64_t sparse_workspace_bytes(const SparsePlan& plan) noexcept {
  const int64_t tiles = sparse_tile_count(plan);
  return static_cast<int64_t>(sizeof(SparseState)) +
         (tiles + 1) * static_cast<int64_t>(sizeof(SparseBefore)) +
         tiles * static_cast<int64_t>(sizeof(uint32_t));
}

cudaError_t sparse_find_cuda(const SparsePlan& plan, const void* x, bool prune, int64_t target,
                             SparseFound* found, void* workspace, cudaStream_t stream) noexcept {
  const SparseWorkspace w = sparse_workspace(plan, workspace);
  cudaError_t error = cudaMemsetAsync(w.state, 0, sizeof(SparseState), stream);
  if (error == cudaSuccess) error = cudaMemsetAsync(found, 0, sizeof(SparseFound), stream);
  if (error == cudaSuccess && target > 0) {
    error = sparse_search_cuda(plan, x, target, w.state, stream);
  }
  if (error != cudaSuccess) return error;
  const uint32_t key_mask = sparse_nonzero_rule(plan.dtype, prune).key_mask;
  const uint32_t largest_taken = prune ? sparse_infinity_key(plan.dtype) - 1 : 0xffffffffu;
  const int64_t tiles = sparse_tile_count(plan);
  if (tiles > 0) {
    with_bits(plan, [&](auto bits) {
      using Bits = decltype(bits);
      count_kernel<Bits><<<grid_of(tiles), kBlockThreads, 0, stream>>>(
          plan.numel, static_cast<const Bits*>(x), is_aligned(x, 16), key_mask, largest_taken,
          w.state, w.counts, found);
    });
  }
  scan_kernel<<<1, kScanThreads, 0, stream>>>(tiles, w.counts, key_mask, target, w.before, w.state,
                                              found);
  return cudaGetLastError();
}

cudaError_t sparse_store_cuda(const SparsePlan& plan, const void* x, const void* workspace,
                              void* indices, void* values, cudaStream_t stream) noexcept {
  if (sparse_wide_indices(plan.numel)) {
    return store(plan, x, workspace, CooOut<int64_t>{static_cast<int64_t*>(indices)}, values,
                 stream);
  }
  return store(plan, x, workspace, CooOut<int32_t>{static_cast<int32_t*>(indices)}, values, stream);
}

cudaError_t sparse_encode_cuda(const SparsePlan& plan, const void* x, const void* workspace,
                               void* index, void* values, cudaStream_t stream) noexcept {
  uint8_t* const bytes = static_cast<uint8_t*>(index);
  switch (plan.form) {
    case SparseForm::kBitmask:
      return store(plan, x, workspace, BitmaskOut{bytes, plan.mask_offset}, values, stream);
    case SparseForm::kBlock8:
      return store(
          plan, x, workspace,
          Block8Out{bytes, plan.block_counts_offset, plan.full_bits_offset, plan.positions_offset},
          values, stream);
    case SparseForm::kUnit16:
      break;
  }
  return store(plan, x, workspace, Unit16Out{bytes, plan.positions_offset}, values, stream);
}

}  // namespace qvlmem
