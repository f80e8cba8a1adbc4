// SPDX-License-Identifier: Apache-2.0
// Blocks of int_pack.h, each in the registers of one thread. Integers are transposed to bits a byte
// of them at a time, as blocks of bytes are (byte_pack_device.cuh), and only as many bytes as the
// block is wide.
#pragma once

#include "kernels/coding/byte_pack_device.cuh"
#include "kernels/coding/int_pack.h"
#include "kernels/coding/pieces_device.cuh"

namespace qvlmem {

static_assert(kPackBlock == static_cast<int>(kIntPackBlock), "a lane has one block");

// Payloads of a piece.
constexpr int kIntPieceBytes = kWarpLanes * (static_cast<int>(kIntPackMaxBytes) - 1);

// Fills a block of n values, 1 or more, up with its last one.
__device__ inline void fill_int_block(int n, uint32_t (&value)[kPackBlock]) {
  if (n >= kPackBlock) return;
  uint32_t last = value[0];
#pragma unroll
  for (int i = 0; i < kPackBlock; ++i) {
    last = i < n ? value[i] : last;
    value[i] = last;
  }
}

struct IntBlockHeader {
  uint32_t header;
  uint32_t base;
};

__device__ inline IntBlockHeader int_block_header(const uint32_t (&value)[kPackBlock]) {
  int32_t low = static_cast<int32_t>(value[0]), high = low;
#pragma unroll
  for (int i = 1; i < kPackBlock; ++i) {
    low = min(low, static_cast<int32_t>(value[i]));
    high = max(high, static_cast<int32_t>(value[i]));
  }
  const uint8_t header = int_pack_header(low, high);
  const bool based = int_pack_kind(header) == IntPackKind::kBased;
  return {header, based ? static_cast<uint32_t>(low) : int_pack_base(header)};
}

__device__ inline int int_payload_words(uint32_t header) {
  return static_cast<int>(int_pack_payload_bytes(static_cast<uint8_t>(header)) / 4);
}

__device__ inline bool int_has_base(uint32_t header) {
  return int_pack_kind(static_cast<uint8_t>(header)) == IntPackKind::kBased;
}

// The words of a block's bits: word b is bit b of all values, less the base.
__device__ inline void pack_int_block(uint32_t base, int width, uint32_t (&value)[kPackBlock]) {
#pragma unroll
  for (int i = 0; i < kPackBlock; ++i) value[i] -= base;
  transpose_planes<4>(value);
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    if (8 * p < width) transpose_bits(value + 8 * p);
  }
}

// The inverse. REQUIRES: words from the width on are 0.
__device__ inline void unpack_int_block(uint32_t base, int width, uint32_t (&word)[kPackBlock]) {
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    if (8 * p < width) transpose_bits(word + 8 * p);
  }
  transpose_planes<4>(word);
#pragma unroll
  for (int i = 0; i < kPackBlock; ++i) word[i] += base;
}

}  // namespace qvlmem
