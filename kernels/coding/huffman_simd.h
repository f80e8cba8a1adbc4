// SPDX-License-Identifier: Apache-2.0
// The inner loops of Huffman coding. Coding has no vectors in it; what it gains from being compiled
// for each ISA is BMI2's shifts, without which a shift costs three operations and rcx.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/isa.h"
#include "kernels/coding/huffman.h"

namespace qvlmem {

// What the next kHuffmanMaxBits bits of a stream decode to: up to six bytes from the lowest byte
// up, bits 48 to 55 the bits that they take, bits 56 to 63 how many they are (at least one).
using HuffmanEntry = uint64_t;

constexpr int kHuffmanEntryBytes = 6;
constexpr size_t kHuffmanWindow = size_t{1} << kHuffmanMaxBits;

// Entries for windows of 0 bits, of 1 bit and so on, those of b bits from (1 << b) - 1: a window is
// its first code, then what the entry of the rest says. Decoding uses the widest.
struct HuffmanTable {
  HuffmanEntry entry[2 * kHuffmanWindow - 1];
};

QVLMEM_SIMD_DECLARE(
    // counts[s][v]: how often the bytes of stream s are v; the counts start at 0.
    void huffman_count(const uint8_t* bytes, size_t n, uint32_t counts[kHuffmanStreams][256]);
    // Writes the streams, one after the other, from `out` on.
    void huffman_encode_streams(const HuffmanCode& code, const uint32_t* stream_bytes,
                                const uint8_t* bytes, size_t n, uint8_t* out);
    // REQUIRES: the code is complete.
    void huffman_fill_table(const HuffmanCode& code, HuffmanTable* table);
    Status huffman_decode_streams(const HuffmanTable& table, const uint8_t* in,
                                  const uint32_t* stream_bytes, size_t n, uint8_t* bytes);)

}  // namespace qvlmem
