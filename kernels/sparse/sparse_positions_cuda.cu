// SPDX-License-Identifier: Apache-2.0
// Where the elements of a compact index stand: before each unit, in the tensor, and in each of its
// dimensions.
#include "kernels/sparse/sparse_units_device.cuh"

namespace qvlmem {
namespace {

constexpr int kScanThreads = 1024;

__global__ void __launch_bounds__(kScanThreads)
    offsets_kernel(int64_t numel, int64_t unit_count, int64_t nnz, const uint16_t* counts,
                   int64_t* offsets, int32_t* corrupt) {
  int64_t before = 0;
  bool good = true;
  for (int64_t round = 0; round < unit_count; round += kScanThreads) {
    const int64_t unit = round + threadIdx.x;
    int count = 0;
    if (unit < unit_count) {
      count = counts[unit];
      good &= count <= unit_numel(numel, unit);
    }
    int total;
    const int exclusive = block_exclusive_sum<kScanThreads>(count, &total);
    if (unit < unit_count) offsets[unit] = before + exclusive;
    before += total;
    __syncthreads();
  }
  good = __syncthreads_and(good && before == nnz);
  if (threadIdx.x != 0) return;
  offsets[unit_count] = before;
  if (good) return;
  offsets[0] = kRefusedOffsets;
  *corrupt = 1;
}

// A unit's positions, within it and in order.
using UnitPositions = uint16_t[kSparseUnit];

// Each form's way to list them. *good becomes false in some thread where the index is refused; what
// is listed then means nothing. REQUIRES: the whole block.
__device__ inline void list_bitmask(const IndexShape& at, int64_t unit, int in_unit,
                                    const UnitEntries& entries, UnitPositions& list, bool* good) {
  const int t = static_cast<int>(threadIdx.x);
  unsigned long long word = word_of_unit(at, unit, in_unit, t, good);
  int total;
  int place = block_exclusive_sum<kBlockThreads>(__popcll(word), &total);
  *good &= total == entries.count;
  for (; word != 0; word &= word - 1) {
    list[place++] = static_cast<uint16_t>(t * kWord + __ffsll(static_cast<long long>(word)) - 1);
  }
}

__device__ inline void list_block8(const IndexShape& at, int64_t unit, int in_unit,
                                   const UnitEntries& entries, UnitPositions& list, bool* good) {
  __shared__ int begins[kUnitBlocks + 1];  // the first entry of each block
  const int b = static_cast<int>(threadIdx.x), blocks = (in_unit + kBlock - 1) / kBlock;
  const int held = entries_of_block(at, unit, blocks, b, good);
  int total;
  const int before = block_exclusive_sum<kBlockThreads>(held, &total);
  if (b <= kUnitBlocks) begins[b] = before;
  *good = __syncthreads_and(*good && total == entries.count);
  if (!*good) return;
  for (int block = b / kWarpLanes; block < blocks; block += kSparseWarps) {
    const uint8_t* const positions = at.positions8() + entries.first + begins[block];
    const int count = begins[block + 1] - begins[block];
    for (int k = b % kWarpLanes; k < count; k += kWarpLanes) {
      const int in_block = positions[k], position = block * kBlock + in_block;
      *good &= position < in_unit && (k == 0 || positions[k - 1] < in_block);
      list[begins[block] + k] = static_cast<uint16_t>(position);
    }
  }
}

__device__ inline void list_unit16(const IndexShape& at, int in_unit, const UnitEntries& entries,
                                   UnitPositions& list, bool* good) {
  const uint16_t* const positions = at.positions16() + entries.first;
  for (int k = threadIdx.x; k < entries.count; k += kBlockThreads) {
    const int position = positions[k];
    *good &= position < in_unit && (k == 0 || positions[k - 1] < position);
    list[k] = static_cast<uint16_t>(position);
  }
}

template <SparseForm kForm>
__global__ void __launch_bounds__(kBlockThreads)
    positions_kernel(int64_t numel, IndexShape at, int64_t* positions, int32_t* corrupt) {
  __shared__ UnitPositions list;
  const int64_t unit = blockIdx.x;
  const int in_unit = unit_numel(numel, unit);
  const UnitEntries entries = unit_entries(at.offsets, unit);
  bool good = !is_refused(at.offsets);
  if constexpr (kForm == SparseForm::kBitmask) {
    list_bitmask(at, unit, in_unit, entries, list, &good);
  } else if constexpr (kForm == SparseForm::kBlock8) {
    list_block8(at, unit, in_unit, entries, list, &good);
  } else {
    list_unit16(at, in_unit, entries, list, &good);
  }
  if (!__syncthreads_and(good)) {
    if (threadIdx.x == 0) *corrupt = 1;
    return;
  }
  for (int k = threadIdx.x; k < entries.count; k += kBlockThreads) {
    positions[entries.first + k] = unit * kSparseUnit + list[k];
  }
}

// What flat positions are in a dimension of `size`, and what is left for the ones before it.
__global__ void __launch_bounds__(kBlockThreads)
    split_kernel(Divisor size, int64_t nnz, int64_t* own, int64_t* rest) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x;
  if (k >= nnz) return;
  int64_t position = own[k];
  rest[k] = size.split(&position);
  own[k] = position;
}

}  // namespace

int64_t sparse_decode_workspace_bytes(const SparsePlan& plan) noexcept {
  return (plan.unit_count + 1) * static_cast<int64_t>(sizeof(int64_t));
}

cudaError_t sparse_offsets_cuda(const SparsePlan& plan, const void* index, int32_t* corrupt,
                                void* workspace, cudaStream_t stream) noexcept {
  offsets_kernel<<<1, kScanThreads, 0, stream>>>(plan.numel, plan.unit_count, plan.nnz,
                                                 static_cast<const uint16_t*>(index),
                                                 static_cast<int64_t*>(workspace), corrupt);
  return cudaGetLastError();
}

cudaError_t sparse_positions_cuda(const SparsePlan& plan, const void* index, int64_t* positions,
                                  int32_t* corrupt, void* workspace, cudaStream_t stream) noexcept {
  if (plan.numel == 0) return cudaSuccess;
  const cudaError_t error = sparse_offsets_cuda(plan, index, corrupt, workspace, stream);
  if (error != cudaSuccess) return error;
  const IndexShape at = index_shape(plan, index, workspace);
  const auto launch = [&](auto* kernel) {
    kernel<<<grid_of(plan.unit_count), kBlockThreads, 0, stream>>>(plan.numel, at, positions,
                                                                   corrupt);
    return cudaGetLastError();
  };
  switch (plan.form) {
    case SparseForm::kBitmask:
      return launch(positions_kernel<SparseForm::kBitmask>);
    case SparseForm::kBlock8:
      return launch(positions_kernel<SparseForm::kBlock8>);
    case SparseForm::kUnit16:
      break;
  }
  return launch(positions_kernel<SparseForm::kUnit16>);
}

cudaError_t sparse_split_positions_cuda(const int64_t* shape, int64_t dims, int64_t nnz,
                                        int64_t* rows, cudaStream_t stream) noexcept {
  if (nnz == 0) return cudaSuccess;
  int64_t numel = 1;
  for (int64_t d = 0; d < dims; ++d) numel *= shape[d];
  for (int64_t d = dims - 1; d > 0; --d) {
    split_kernel<<<blocks_for(nnz), kBlockThreads, 0, stream>>>(
        Divisor(shape[d], numel), nnz, rows + d * nnz, rows + (d - 1) * nnz);
    numel /= shape[d];
  }
  return cudaGetLastError();
}

}  // namespace qvlmem
