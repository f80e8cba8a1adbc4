// SPDX-License-Identifier: Apache-2.0
// The vector loops of byte_pack.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/isa.h"
#include "kernels/base/status.h"
#include "kernels/coding/byte_pack.h"

namespace qvlmem {

// Pieces in which a run of bytes may be packed and unpacked: multiples of two blocks.
constexpr size_t kBytePackPiece = 2 * kBytePackBlock;

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
