// SPDX-License-Identifier: Apache-2.0
// Expanding: a block finds the entries of its tile, puts them in their places in shared memory and
// writes the tile, zeros and all, so that every entry and every element is touched once. Another
// stream may change the index meanwhile: counts are read once, and places are checked as they are
// read.
#include "kernels/sparse/sparse_device.cuh"
#include "kernels/sparse/sparse_units_device.cuh"

namespace qvlmem {
namespace {

constexpr int kTileBlocks = kSparseTile / kBlock;

// ---- A tile in shared memory ----

template <class Bits>
struct alignas(16) TileBuffer {
  Bits element[kSparseTile];

  __device__ void clear() {
#pragma unroll
    for (int k = 0; k < kSparseHeld / kVector<Bits>; ++k) {
      reinterpret_cast<uint4*>(element)[threadIdx.x + k * kBlockThreads] = uint4{0, 0, 0, 0};
    }
  }

  // The first n elements.
  __device__ void write(int n, bool vectors, Bits* y) const {
    constexpr int V = kVector<Bits>;
#pragma unroll
    for (int k = 0; k < kSparseHeld; k += V) {
      const int at = k * kBlockThreads + static_cast<int>(threadIdx.x) * V;
      Bits elements[V];
      load_elements<V>(element + at, V, true, elements);
      store_elements<V>(elements, n - at, vectors, y + at);
    }
  }
};

template <class Bits>
struct DecodeShape {
  int64_t numel, nnz;
  const Bits* values;
  Bits* y;
  bool vectors;  // y is aligned to 16
  int32_t* corrupt;
};

template <class Bits>
DecodeShape<Bits> decode_shape(const SparsePlan& plan, int64_t nnz, const void* values, void* y,
                               int32_t* corrupt) {
  return {plan.numel,        nnz,    static_cast<const Bits*>(values), static_cast<Bits*>(y),
          is_aligned(y, 16), corrupt};
}

// A tile that is refused becomes NaN throughout.
template <class Bits>
__device__ inline void refuse_tile(const DecodeShape<Bits>& shape, int64_t tile, int n) {
  Bits* const y = shape.y + tile * kSparseTile;
#pragma unroll 1
  for (int k = threadIdx.x; k < n; k += kBlockThreads) y[k] = static_cast<Bits>(~0u);
  if (threadIdx.x == 0) *shape.corrupt = 1;
}

// Writes a tile, unless a thread has found it no good.
template <class Bits>
__device__ inline void finish_tile(const DecodeShape<Bits>& shape, int64_t tile, int n, bool good,
                                   const TileBuffer<Bits>& buffer) {
  if (!__syncthreads_and(good)) return refuse_tile(shape, tile, n);
  buffer.write(n, shape.vectors, shape.y + tile * kSparseTile);
}

// ---- Lists of positions: COO, and each unit of kUnit16 ----

// The number of entries below `bound`, where they are sorted; some number of them otherwise, the
// same in every block. Of the interval that is left a warp looks at 32 entries at a time.
// REQUIRES: the whole warp.
template <class Index>
__device__ inline int64_t count_below(const Index* indices, int64_t length, int64_t bound) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  int64_t begin = 0, end = length;  // the answer lies in begin..end
  while (begin < end) {
    const int64_t step = (end - begin + kWarpLanes - 1) / kWarpLanes;
    const int64_t at = min(begin + lane * step, end - 1);
    const unsigned below = __ballot_sync(kAllLanes, static_cast<int64_t>(indices[at]) < bound);
    const int lanes = below == kAllLanes ? kWarpLanes : __ffs(static_cast<int>(~below)) - 1;
    if (lanes == 0) return begin;
    const int64_t last = min(begin + (lanes - 1) * step, end - 1);  // is below
    if (lanes < kWarpLanes) end = min(begin + lanes * step, end - 1);
    begin = last + 1;
  }
  return begin;
}

// The list of positions that a tile's are part of.
template <class Index>
struct PositionList {
  const Index* positions;
  int64_t first, length;   // of the entries
  int64_t begin, end;      // of the tile, counted as the positions are
  bool is_first, is_last;  // the tile of the list
  bool is_refused;
};

template <class Index>
struct CooSource {
  using Position = Index;
  const Index* indices;

  template <class Bits>
  __device__ PositionList<Index> list(const DecodeShape<Bits>& shape, int64_t tile, int n) const {
    const int64_t begin = tile * kSparseTile;
    return {indices, 0, shape.nnz, begin, begin + n, tile == 0, begin + n == shape.numel, false};
  }
};

struct Unit16Source {
  using Position = uint16_t;
  const uint16_t* positions;
  const int64_t* offsets;

  template <class Bits>
  __device__ PositionList<uint16_t> list(const DecodeShape<Bits>& shape, int64_t tile,
                                         int n) const {
    const int in_unit = static_cast<int>(tile % kUnitTiles);
    const int begin = in_unit * kSparseTile;
    const UnitEntries entries = unit_entries(offsets, tile / kUnitTiles);
    return {positions + entries.first,
            entries.first,
            entries.count,
            begin,
            begin + n,
            in_unit == 0,
            in_unit == kUnitTiles - 1 || tile * kSparseTile + n == shape.numel,
            is_refused(offsets)};
  }
};

template <class Bits, class Source>
__global__ void __launch_bounds__(kBlockThreads)
    scatter_kernel(DecodeShape<Bits> shape, Source source) {
  using Index = typename Source::Position;
  __shared__ TileBuffer<Bits> buffer;
  __shared__ int64_t bounds[2];
  const int64_t tile = blockIdx.x;
  const int n = tile_numel(shape.numel, tile);
  const PositionList<Index> list = source.list(shape, tile, n);
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  if (warp < 2) {
    // All entries lie between the first bound and the last, whatever they hold.
    int64_t bound;
    if (warp == 0) {
      bound = list.is_first ? 0 : count_below(list.positions, list.length, list.begin);
    } else {
      bound = list.is_last ? list.length : count_below(list.positions, list.length, list.end);
    }
    if (threadIdx.x % kWarpLanes == 0) bounds[warp] = bound;
  }
  buffer.clear();
  __syncthreads();
  const Index* const positions = list.positions + bounds[0];
  const Bits* const values = shape.values + list.first + bounds[0];
  const int64_t count = bounds[1] - bounds[0];
  // Neighbours agree on where one's entries end and the other's begin: where every block finds its
  // own in order and in its tile, all are.
  bool good = count >= 0 && count <= n && !list.is_refused;
  if (good) {
#pragma unroll 1
    for (int k = threadIdx.x; k < static_cast<int>(count); k += kBlockThreads) {
      const int64_t place = static_cast<int64_t>(positions[k]) - list.begin;
      if (place < 0 || place >= n || (k > 0 && positions[k - 1] >= positions[k])) {
        good = false;
        break;
      }
      buffer.element[place] = values[k];
    }
  }
  finish_tile(shape, tile, n, good, buffer);
}

// ---- Compact forms ----

template <class Bits>
__global__ void __launch_bounds__(kBlockThreads)
    block8_kernel(DecodeShape<Bits> shape, IndexShape at) {
  __shared__ TileBuffer<Bits> buffer;
  __shared__ int begins[kUnitBlocks + 1];  // the first entry of each block of the unit
  const int64_t tile = blockIdx.x, unit = tile / kUnitTiles;
  const int n = tile_numel(shape.numel, tile);
  const UnitEntries entries = unit_entries(at.offsets, unit);
  const int blocks = (unit_numel(shape.numel, unit) + kBlock - 1) / kBlock;
  const int b = static_cast<int>(threadIdx.x);
  bool good = !is_refused(at.offsets);
  const int held = entries_of_block(at, unit, blocks, b, &good);
  int total;
  const int before = block_exclusive_sum<kBlockThreads>(held, &total);
  if (b <= kUnitBlocks) begins[b] = before;
  good &= total == entries.count;
  buffer.clear();
  good = __syncthreads_and(good);
  if (good) {
    const int origin = static_cast<int>(tile % kUnitTiles) * kTileBlocks;
    const int lane = b % kWarpLanes;
    for (int i = b / kWarpLanes; i < kTileBlocks && origin + i < blocks; i += kSparseWarps) {
      const int64_t first = entries.first + begins[origin + i];
      const uint8_t* const positions = at.index + at.positions_offset + first;
      const int count = begins[origin + i + 1] - begins[origin + i];
      for (int k = lane; k < count; k += kWarpLanes) {
        const int place = i * kBlock + positions[k];
        if (place >= n || (k > 0 && positions[k - 1] >= positions[k])) {
          good = false;
          break;
        }
        buffer.element[place] = shape.values[first + k];
      }
    }
  }
  finish_tile(shape, tile, n, good, buffer);
}

template <class Bits>
__global__ void __launch_bounds__(kBlockThreads)
    bitmask_kernel(DecodeShape<Bits> shape, IndexShape at) {
  constexpr int V = kVector<Bits>;
  constexpr int kTileWords = kSparseTile / kWord;
  __shared__ unsigned long long words[kTileWords];
  __shared__ int ranks[kTileWords];  // bits before each word, in the unit
  const int64_t tile = blockIdx.x, unit = tile / kUnitTiles;
  const int n = tile_numel(shape.numel, tile);
  const UnitEntries entries = unit_entries(at.offsets, unit);
  const int t = static_cast<int>(threadIdx.x);
  bool good = !is_refused(at.offsets);
  const unsigned long long word = word_of_unit(at, unit, unit_numel(shape.numel, unit), t, &good);
  int total;
  const int rank = block_exclusive_sum<kBlockThreads>(__popcll(word), &total);
  const int mine = t - static_cast<int>(tile % kUnitTiles) * kTileWords;
  if (mine >= 0 && mine < kTileWords) words[mine] = word, ranks[mine] = rank;
  good &= total == entries.count;
  good = __syncthreads_and(good);
  if (!good) return refuse_tile(shape, tile, n);
#pragma unroll
  for (int k = 0; k < kSparseHeld; k += V) {
    const int first = k * kBlockThreads + t * V;
    const unsigned long long bits = words[first / kWord];
    int64_t next =
        entries.first + ranks[first / kWord] + __popcll(bits & ((1ull << (first % kWord)) - 1));
    Bits elements[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      elements[j] = 0;
      if ((bits >> (first % kWord + j)) & 1) elements[j] = shape.values[next++];
    }
    store_elements<V>(elements, n - first, shape.vectors, shape.y + tile * kSparseTile + first);
  }
}

template <class Index>
cudaError_t densify(const SparsePlan& plan, const Index* indices, const void* values, int64_t nnz,
                    void* y, int32_t* corrupt, cudaStream_t stream) {
  if (plan.numel == 0) return cudaSuccess;
  const dim3 tiles = grid_of(sparse_tile_count(plan));
  return with_bits(plan, [&](auto bits) {
    using Bits = decltype(bits);
    scatter_kernel<<<tiles, kBlockThreads, 0, stream>>>(
        decode_shape<Bits>(plan, nnz, values, y, corrupt), CooSource<Index>{indices});
    return cudaGetLastError();
  });
}

}  // namespace

cudaError_t sparse_densify_cuda(const SparsePlan& plan, const int32_t* indices, const void* values,
                                int64_t nnz, void* y, int32_t* corrupt,
                                cudaStream_t stream) noexcept {
  return densify(plan, indices, values, nnz, y, corrupt, stream);
}

cudaError_t sparse_densify_cuda(const SparsePlan& plan, const int64_t* indices, const void* values,
                                int64_t nnz, void* y, int32_t* corrupt,
                                cudaStream_t stream) noexcept {
  return densify(plan, indices, values, nnz, y, corrupt, stream);
}

cudaError_t sparse_decode_cuda(const SparsePlan& plan, const void* index, const void* values,
                               void* y, int32_t* corrupt, void* workspace,
                               cudaStream_t stream) noexcept {
  if (plan.numel == 0) return cudaSuccess;
  const dim3 tiles = grid_of(sparse_tile_count(plan));
  const cudaError_t error = sparse_offsets_cuda(plan, index, corrupt, workspace, stream);
  if (error != cudaSuccess) return error;
  const IndexShape at = index_shape(plan, index, workspace);
  return with_bits(plan, [&](auto bits) {
    using Bits = decltype(bits);
    const auto shape = decode_shape<Bits>(plan, plan.nnz, values, y, corrupt);
    switch (plan.form) {
      case SparseForm::kBitmask:
        bitmask_kernel<<<tiles, kBlockThreads, 0, stream>>>(shape, at);
        break;
      case SparseForm::kBlock8:
        block8_kernel<<<tiles, kBlockThreads, 0, stream>>>(shape, at);
        break;
      case SparseForm::kUnit16: {
        scatter_kernel<<<tiles, kBlockThreads, 0, stream>>>(
            shape, Unit16Source{at.positions16(), at.offsets});
        break;
      }
    }
    return cudaGetLastError();
  });
}

}  // namespace qvlmem
