// SPDX-License-Identifier: Apache-2.0
// Blocks of byte_pack.h, each in the registers of one thread: nothing is left to do together but to
// add up widths. Byte c of word j is byte 8 * c + j of the block: so the bits of a plane come
// together by transposing 8x8 bits within bytes.
#pragma once

#include "kernels/base/device.cuh"
#include "kernels/coding/byte_pack.h"

namespace qvlmem {

// Word i becomes byte i of each of the four.
__device__ inline void transpose_bytes(uint32_t* a, uint32_t* b, uint32_t* c, uint32_t* d) {
  const uint32_t ab_low = __byte_perm(*a, *b, 0x5140), ab_high = __byte_perm(*a, *b, 0x7362);
  const uint32_t cd_low = __byte_perm(*c, *d, 0x5140), cd_high = __byte_perm(*c, *d, 0x7362);
  *a = __byte_perm(ab_low, cd_low, 0x5410);
  *b = __byte_perm(ab_low, cd_low, 0x7632);
  *c = __byte_perm(ab_high, cd_high, 0x5410);
  *d = __byte_perm(ab_high, cd_high, 0x7632);
}

// Which register has word j of byte p of each value of a block of words of kWordBytes, transposed.
template <int kWordBytes>
constexpr int plane_word(int p, int j) {
  constexpr int kValues = 4 / kWordBytes;  // in a register
  return 2 * kWordBytes * (kWordBytes * (j % kValues) + p) + j / kValues;
}

template <int kWordBytes>
__device__ inline void transpose_planes(uint32_t (&word)[8 * kWordBytes]) {
#pragma unroll
  for (int k = 0; k < 2 * kWordBytes; ++k) {
    transpose_bytes(&word[k], &word[2 * kWordBytes + k], &word[4 * kWordBytes + k],
                    &word[6 * kWordBytes + k]);
  }
}

template <int kStep>
__device__ __forceinline__ void swap_bits(uint32_t mask, uint32_t* word) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (j & kStep) continue;
    const uint32_t other = ((word[j] >> kStep) ^ word[j + kStep]) & mask;
    word[j + kStep] ^= other;
    word[j] ^= other << kStep;
  }
}

// Of 8 words: bit b of byte c of word j becomes bit j of byte c of word b.
__device__ __forceinline__ void transpose_bits(uint32_t* word) {
  swap_bits<4>(0x0f0f0f0fu, word);
  swap_bits<2>(0x33333333u, word);
  swap_bits<1>(0x55555555u, word);
}

// The bytes of a block in order, four a word.
__device__ inline void to_sequence(const uint32_t (&word)[8], uint32_t (&sequence)[8]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = word[4 * half + i];
    transpose_bytes(&w[0], &w[1], &w[2], &w[3]);
#pragma unroll
    for (int c = 0; c < 4; ++c) sequence[2 * c + half] = w[c];
  }
}

__device__ inline void from_sequence(const uint32_t (&sequence)[8], uint32_t (&word)[8]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t w[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) w[c] = sequence[2 * c + half];
    transpose_bytes(&w[0], &w[1], &w[2], &w[3]);
#pragma unroll
    for (int i = 0; i < 4; ++i) word[4 * half + i] = w[i];
  }
}

// The bytes of word j that are among the first n of a block, n from 0 on.
__device__ inline uint32_t bytes_of_first(int n, int j) {
  const int count = (n + 7 - j) >> 3;
  return count >= 4 ? 0xffffffffu : (1u << (8 * count)) - 1;
}

struct ByteBlockHeader {
  uint32_t base, width;
};

// Of a block of n bytes, 0 to 32; what stands in the others does not count.
__device__ inline ByteBlockHeader byte_block_header(const uint32_t (&word)[8], int n) {
  uint32_t low = 255, high = 0;
  if (n >= static_cast<int>(kBytePackBlock)) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const uint32_t byte = word[j] >> (8 * c) & 0xffu;
        low = min(low, byte);
        high = max(high, byte);
      }
    }
  } else {
    if (n <= 0) return {0, 0};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const uint32_t byte = word[j] >> (8 * c) & 0xffu;
        low = 8 * c + j < n ? min(low, byte) : low;
        high = 8 * c + j < n ? max(high, byte) : high;
      }
    }
  }
  return {low, byte_pack_width(high - low)};
}

// The planes of a block of n bytes: word b is bit b of all of them, less the base.
__device__ inline void pack_byte_block(uint32_t base, int n, uint32_t (&word)[8]) {
  const uint32_t bases = base * 0x01010101u;
#pragma unroll
  for (int j = 0; j < 8; ++j) word[j] -= bases;  // no byte borrows: none that counts is below
  if (n < static_cast<int>(kBytePackBlock)) {
#pragma unroll
    for (int j = 0; j < 8; ++j) word[j] &= bytes_of_first(n, j);
  }
  transpose_bits(word);
}

// The inverse. Words from the width on are 0.
__device__ inline void unpack_byte_block(uint32_t base, uint32_t (&word)[8]) {
  transpose_bits(word);
  const uint32_t bases = base * 0x01010101u;
#pragma unroll
  for (int j = 0; j < 8; ++j) {  // by bytes: hostile bases may overflow
    const uint32_t low = (word[j] & 0x7f7f7f7fu) + (bases & 0x7f7f7f7fu);
    word[j] = low ^ ((word[j] ^ bases) & 0x80808080u);
  }
}

}  // namespace qvlmem
