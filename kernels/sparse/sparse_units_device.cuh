// SPDX-License-Identifier: Apache-2.0
// The units of a compact index, for the kernels that read it.
#pragma once

#include "kernels/sparse/sparse_device.cuh"

namespace qvlmem {

constexpr int kBlock = static_cast<int>(kSparseBlock);
constexpr int kUnitBlocks = static_cast<int>(kSparseUnit) / kBlock;

// In place of the first offset, which is 0: the counts are refused, and with them every unit.
constexpr int64_t kRefusedOffsets = -1;

// offsets[u], in the workspace: entries before unit u, by the counts that an index begins with.
// REQUIRES: plan.numel > 0.
cudaError_t sparse_offsets_cuda(const SparsePlan& plan, const void* index, int32_t* corrupt,
                                void* workspace, cudaStream_t stream) noexcept;

struct IndexShape {
  const uint8_t* index;
  const int64_t* offsets;
  int64_t mask_offset, block_counts_offset, full_bits_offset, positions_offset;

  __device__ const uint8_t* positions8() const { return index + positions_offset; }
  QVLMEM_HD const uint16_t* positions16() const {
    return reinterpret_cast<const uint16_t*>(index + positions_offset);
  }
};

inline IndexShape index_shape(const SparsePlan& plan, const void* index, const void* workspace) {
  return {static_cast<const uint8_t*>(index),
          static_cast<const int64_t*>(workspace),
          plan.mask_offset,
          plan.block_counts_offset,
          plan.full_bits_offset,
          plan.positions_offset};
}

__device__ inline bool is_refused(const int64_t* offsets) { return offsets[0] == kRefusedOffsets; }

// The entries of a unit; none where the counts were refused.
struct UnitEntries {
  int64_t first;
  int count;
};

__device__ inline UnitEntries unit_entries(const int64_t* offsets, int64_t unit) {
  if (is_refused(offsets)) return {0, 0};
  const int64_t first = offsets[unit];
  return {first, static_cast<int>(offsets[unit + 1] - first)};
}

__device__ inline int unit_numel(int64_t numel, int64_t unit) {
  return static_cast<int>(min(kSparseUnit, numel - unit * kSparseUnit));
}

// kBlock8: entries of block b of a unit that has so many blocks; *good becomes false where its
// count and its bit contradict one another.
__device__ inline int entries_of_block(const IndexShape& at, int64_t unit, int blocks, int b,
                                       bool* good) {
  if (b >= (blocks + 7) / 8 * 8) return 0;
  const uint8_t bits = at.index[at.full_bits_offset + unit * (kUnitBlocks / 8) + b / 8];
  int held = 0;
  if (b < blocks) held = at.index[at.block_counts_offset + unit * kUnitBlocks + b];
  if (((bits >> (b % 8)) & 1) == 0) return held;
  *good &= b < blocks && held == 0;
  return kBlock;
}

constexpr int kWord = 64;
static_assert(kSparseUnit == int64_t{kBlockThreads} * kWord, "a word of the unit a thread");

// kBitmask: word t of a unit of so many elements; *good becomes false where it has bits beyond
// them.
__device__ inline unsigned long long word_of_unit(const IndexShape& at, int64_t unit, int in_unit,
                                                  int t, bool* good) {
  // Masks begin at an even address, no better.
  const uint8_t* const mask = at.index + at.mask_offset + unit * (kSparseUnit / 8) + t * 8;
  const int bytes = (in_unit + 7) / 8 - t * 8;
  unsigned long long word = 0;
  if (bytes >= 8) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const unsigned long long half = reinterpret_cast<const uint16_t*>(mask)[i];
      word |= half << (16 * i);
    }
  } else {
    for (int i = 0; i < bytes; ++i) word |= static_cast<unsigned long long>(mask[i]) << (8 * i);
  }
  const int live = in_unit - t * kWord;  // elements that the word is of
  *good &= live >= kWord || live <= 0 || word >> live == 0;
  return word;
}

}  // namespace qvlmem
