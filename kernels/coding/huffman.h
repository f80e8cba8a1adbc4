// SPDX-License-Identifier: Apache-2.0
// Canonical Huffman coding of bytes (Huffman 1952; Schwartz and Kallick 1964), codes of at most 11
// bits, in eight streams that are independent of one another: several are coded at a time, and on a
// GPU each by a thread.
//
// Layout of n bytes:
//   first, last   the smallest and the largest byte that has a code
//   lengths       4 bits for each byte from first to last, the first in the low nibble: 1 to 11, or
//                 0 where it has no code; padded with 0 to a whole byte
//   sizes         8 little-endian words of 16 bits: the bytes of each stream
//   streams       stream s codes bytes [s * k, (s + 1) * k) of the n, k = ceil(n / 8), from the
//                 lowest bit of its first byte up
// Codes are assigned by length, then by value, and stand in the stream with their first bit lowest.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/status.h"

namespace qvlmem {

constexpr int kHuffmanMaxBits = 11;
constexpr int kHuffmanStreams = 8;
// So that the bytes of a stream fit in 16 bits.
constexpr size_t kHuffmanMaxCount = size_t{1} << 17;

// Codes for the bytes that occur, complete (every sequence of bits decodes).
struct HuffmanCode {
  uint8_t length[256];  // 0: has no code
  uint16_t bits[256];   // first bit lowest
  uint8_t first;        // the smallest and the largest byte with a code
  uint8_t last;
};

// What huffman_encode needs to know, found in one look at the data.
struct HuffmanPlan {
  HuffmanCode code;
  uint32_t stream_bytes[kHuffmanStreams];
  size_t size;  // of the whole
};

// The code with the least total length for these counts, but for the limit of 11 bits: there codes
// that are too long are shortened and the least frequent others lengthened.
// REQUIRES: at least two counts are not 0, and their sum is at most 2^24 - 1.
void huffman_build(const uint32_t counts[256], HuffmanCode* code) noexcept;

// The total length of these counts under `code`, in bits.
uint64_t huffman_bits(const uint32_t counts[256], const HuffmanCode& code) noexcept;

// What coding these bytes would take: exact but for the padding of streams, and n where it would
// gain less than a 32nd. REQUIRES: 0 < n <= kHuffmanMaxCount.
size_t huffman_measure(const uint8_t* bytes, size_t n) noexcept;

// False where all bytes are equal. REQUIRES: 0 < n <= kHuffmanMaxCount.
bool huffman_plan(const uint8_t* bytes, size_t n, HuffmanPlan* plan) noexcept;

// Writes plan.size bytes.
void huffman_encode(const HuffmanPlan& plan, const uint8_t* bytes, size_t n, uint8_t* out) noexcept;

// Decodes n bytes out of `size`, which may be hostile: kCorrupt where their parts do not fill them
// exactly, the code is not complete or a stream ends too early. Takes O(n) steps, whatever they
// hold.
Status huffman_decode(const uint8_t* in, size_t size, size_t n, uint8_t* bytes) noexcept;

}  // namespace qvlmem
