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
  return grid_of(warps > 0 ? ceil_div(warps, kPieceWarps) : 1);
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

// Chunks of shared memory for a run of so many bytes, and a word that words_at may look at beyond.
constexpr int run_chunks(int bytes) { return bytes / 16 + 2; }

// Where bytes from global memory begin in their run.
__device__ inline int run_lead(const uint8_t* from) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(from) & 15u);
}

// Bytes [from, from + bytes) on their way from global memory to a run in shared memory. Several may
// be at once: all loads of a warp are sent off before it waits for one. kRounds: chunks that a lane
// has under way; what else there is comes with arrive.
template <int kRounds>
class RunUnderWay {
 public:
  __device__ __forceinline__ void leave(const uint8_t* from, int bytes, Readable all) {
    const int lead = run_lead(from);
    all_ = all;
    first_ = from - lead;
    chunks_ = (lead + bytes + 15) / 16;
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const int c = round * kWarpLanes + warp_lane();
      if (c < chunks_ && is_whole(c)) held_[round] = chunk(c);
    }
  }

  // In the run they begin as far into a chunk as in global memory.
  __device__ __forceinline__ void arrive(uint4* run) const {
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const int c = round * kWarpLanes + warp_lane();
      if (c >= chunks_) continue;
      if (is_whole(c)) {
        run[c] = held_[round];
      } else {
        take_readable(c, run);
      }
    }
    for (int c = kRounds * kWarpLanes + warp_lane(); c < chunks_; c += kWarpLanes) {
      if (is_whole(c)) {
        run[c] = chunk(c);
      } else {
        take_readable(c, run);
      }
    }
  }

 private:
  __device__ bool is_whole(int c) const {
    return first_ + 16 * c >= all_.begin && all_.end - first_ >= 16 * (c + 1);
  }
  __device__ uint4 chunk(int c) const { return reinterpret_cast<const uint4*>(first_)[c]; }
  __device__ void take_readable(int c, uint4* run) const {
    uint8_t* const to = reinterpret_cast<uint8_t*>(run + c);
    const uint8_t* const from = first_ + 16 * c;
    for (int i = 0; i < 16; ++i) {
      if (from + i >= all_.begin && from + i < all_.end) to[i] = from[i];
    }
  }

  Readable all_;
  const uint8_t* first_;
  int chunks_;
  uint4 held_[kRounds];
};

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
