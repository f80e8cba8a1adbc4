// SPDX-License-Identifier: Apache-2.0
// How coders work on CUDA: a warp takes a piece of 1024 values, of which each lane has a block of
// 32 in registers. Between them and global memory they are staged in shared memory, so that one
// sees whole lines and the other whole blocks.
#pragma once

#include "kernels/base/device.cuh"

namespace qvlmem {

constexpr int kPackBlock = 32;
constexpr int kPieceValues = kWarpLanes * kPackBlock;
constexpr int kPieceWarps = 4;  // of a thread block
constexpr int kPieceThreads = kPieceWarps * kWarpLanes;

// Blocks of threads for `warps` warps, one at least.
inline dim3 piece_blocks(int64_t warps) {
  return dim3(static_cast<unsigned>(warps > 0 ? ceil_div(warps, kPieceWarps) : 1));
}

__device__ inline int64_t warp_index() {
  return static_cast<int64_t>(blockIdx.x) * kPieceWarps +
         static_cast<int>(threadIdx.x) / kWarpLanes;
}

__device__ inline int warp_lane() { return static_cast<int>(threadIdx.x) % kWarpLanes; }

__device__ inline uint32_t warp_sum(uint32_t value) {
#pragma unroll
  for (int step = kWarpLanes / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, step);
  }
  return value;
}

// The sum over the lanes before this one; *total becomes that of all.
__device__ inline uint32_t warp_sum_before(uint32_t value, uint32_t* total) {
  uint32_t sum = value;
#pragma unroll
  for (int step = 1; step < kWarpLanes; step *= 2) {
    const uint32_t before = __shfl_up_sync(kAllLanes, sum, step);
    if (warp_lane() >= step) sum += before;
  }
  *total = __shfl_sync(kAllLanes, sum, kWarpLanes - 1);
  return sum - value;
}

// Chunks of 16 bytes in shared memory, so placed that neither lanes that each take a chunk in turn
// nor lanes that each take a stretch of 2, 4, 8 or 16 of them meet in a bank.
__device__ inline int swizzled(int chunk) { return chunk ^ (((chunk >> 3) ^ (chunk >> 6)) & 7); }

// Values of this lane's block in a piece of n.
__device__ inline int block_length(int n) {
  return min(max(n - warp_lane() * kPackBlock, 0), kPackBlock);
}

// This lane's block of an array of words of kWordBytes, staged in chunks that are swizzled.
template <int kWordBytes>
__device__ inline void take_block(const uint4* staged, uint32_t (&word)[8 * kWordBytes]) {
#pragma unroll
  for (int j = 0; j < 2 * kWordBytes; ++j) {
    const uint4 chunk = staged[swizzled(warp_lane() * 2 * kWordBytes + j)];
    word[4 * j] = chunk.x;
    word[4 * j + 1] = chunk.y;
    word[4 * j + 2] = chunk.z;
    word[4 * j + 3] = chunk.w;
  }
}

template <int kWordBytes>
__device__ inline void put_block(const uint32_t (&word)[8 * kWordBytes], uint4* staged) {
#pragma unroll
  for (int j = 0; j < 2 * kWordBytes; ++j) {
    staged[swizzled(warp_lane() * 2 * kWordBytes + j)] =
        make_uint4(word[4 * j], word[4 * j + 1], word[4 * j + 2], word[4 * j + 3]);
  }
}

// Writes `bytes` bytes at `run`, in shared memory with a word of room behind, to `to`.
__device__ inline void store_run(const uint32_t* run, int bytes, uint8_t* to) {
  const uint8_t* from = reinterpret_cast<const uint8_t*>(run);
  const int lane = warp_lane();
  const int head = min(static_cast<int>(-reinterpret_cast<uintptr_t>(to) & 3u), bytes);
  const int words = (bytes - head) / 4;
  if (lane < head) to[lane] = from[lane];
  uint32_t* out = reinterpret_cast<uint32_t*>(to + head);
  for (int k = lane; k < words; k += kWarpLanes) {
    out[k] = __funnelshift_r(run[k], run[k + 1], static_cast<unsigned>(8 * head));
  }
  const int tail = head + 4 * words + lane;
  if (tail < bytes) to[tail] = from[tail];
}

// Bytes that may be read.
struct Readable {
  const uint8_t* begin;
  const uint8_t* end;
};

// Chunks of shared memory that load_run writes to, and a word that word_at may look at beyond.
constexpr int run_chunks(int bytes) { return bytes / 16 + 2; }

// Reads bytes [from, from + bytes) to `run`, where they begin as far into a chunk as in global
// memory: at the byte that this returns.
__device__ inline int load_run(const uint8_t* from, int bytes, Readable all, uint4* run) {
  const int lead = static_cast<int>(reinterpret_cast<uintptr_t>(from) & 15u);
  const int chunks = (lead + bytes + 15) / 16;
  for (int c = warp_lane(); c < chunks; c += kWarpLanes) {
    const uint8_t* chunk = from - lead + 16 * c;
    if (chunk >= all.begin && all.end - chunk >= 16) {
      run[c] = *reinterpret_cast<const uint4*>(chunk);
      continue;
    }
    uint8_t* to = reinterpret_cast<uint8_t*>(run + c);
    for (int i = 0; i < 16; ++i) {
      if (chunk + i >= all.begin && chunk + i < all.end) to[i] = chunk[i];
    }
  }
  return lead;
}

// kCount words that begin at byte `at` of a run, or the first n of them.
template <int kCount>
__device__ inline void words_at(const uint4* run, int at, int n, uint32_t (&word)[kCount]) {
  const uint32_t* words = reinterpret_cast<const uint32_t*>(run) + at / 4;
  const unsigned shift = static_cast<unsigned>(at % 4 * 8);
  uint32_t low = words[0];
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    word[k] = 0;
    if (k < n) {
      const uint32_t high = words[k + 1];
      word[k] = __funnelshift_r(low, high, shift);
      low = high;
    }
  }
}

}  // namespace qvlmem
