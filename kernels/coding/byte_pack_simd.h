// SPDX-License-Identifier: Apache-2.0
// Bytes bit-packed in blocks of 32 against each block's smallest: no branch on the data, and on a
// GPU one warp a block (a bit plane is a ballot).
//
// Layout of n bytes, with b = ceil(n / 32) blocks:
//   widths   ceil(b / 2) bytes: 4 bits a block, the first in the low nibble; 0 to 8
//   bases    b bytes: the smallest byte of each block
//   planes   4 * width bytes a block, in order: for each bit from the lowest, a little-endian word
//            whose bit i is that of byte i less the base
// The last block, where short, counts as filled up with its base.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/isa.h"
#include "kernels/base/status.h"

namespace qvlmem {

constexpr size_t kBytePackBlock = 32;
// Pieces in which a run of bytes may be packed and unpacked: multiples of two blocks.
constexpr size_t kBytePackPiece = 2 * kBytePackBlock;

constexpr size_t byte_pack_blocks(size_t n) { return (n + kBytePackBlock - 1) / kBytePackBlock; }

// Bytes of widths and bases.
constexpr size_t byte_pack_header_bytes(size_t n) {
  return byte_pack_blocks(n) + (byte_pack_blocks(n) + 1) / 2;
}

// Room that packing n bytes may write to: the largest size, and what whole vectors write beyond.
constexpr size_t byte_pack_bound(size_t n) {
  return byte_pack_header_bytes(n) + kBytePackBlock * (byte_pack_blocks(n) + 1);
}

// Where packed bytes go next, or come from.
struct BytePackWriter {
  uint8_t* widths;
  uint8_t* bases;
  uint8_t* planes;
};

struct BytePackReader {
  const uint8_t* widths;
  const uint8_t* bases;
  const uint8_t* planes;
  const uint8_t* end;
};

inline BytePackWriter byte_pack_begin(size_t n, uint8_t* packed) {
  const size_t blocks = byte_pack_blocks(n), header = byte_pack_header_bytes(n);
  return BytePackWriter{packed, packed + (header - blocks), packed + header};
}

QVLMEM_SIMD_DECLARE(
    // The size of n bytes when packed.
    size_t byte_pack_measure(const uint8_t* bytes, size_t n);
    // Packs the next n bytes of a run: a multiple of kBytePackPiece, but for the last ones.
    void byte_pack(const uint8_t* bytes, size_t n, BytePackWriter* writer);
    // Begins to read n bytes packed in `size`, which may be hostile: kCorrupt where these are not
    // exactly as many as their widths ask for.
    Status byte_unpack_begin(const uint8_t* packed, size_t size, size_t n, BytePackReader* reader);
    // Unpacks the next n bytes: a multiple of kBytePackPiece, but for the last ones. bytes has room
    // for whole blocks.
    void byte_unpack(BytePackReader* reader, size_t n, uint8_t* bytes);)

}  // namespace qvlmem
