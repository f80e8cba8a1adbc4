// SPDX-License-Identifier: Apache-2.0
// Bytes bit-packed in blocks of 32 against each block's smallest: no branch on the data, and on a
// GPU a thread a block.
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

#include "kernels/base/macros.h"

namespace qvlmem {

constexpr size_t kBytePackBlock = 32;

QVLMEM_HD constexpr size_t byte_pack_blocks(size_t n) {
  return (n + kBytePackBlock - 1) / kBytePackBlock;
}

// Bytes of widths and bases.
QVLMEM_HD constexpr size_t byte_pack_header_bytes(size_t n) {
  return byte_pack_blocks(n) + (byte_pack_blocks(n) + 1) / 2;
}

// Bits that hold 0..span.
QVLMEM_HD inline uint32_t byte_pack_width(uint32_t span) {
#if defined(__CUDA_ARCH__)
  return 32u - static_cast<uint32_t>(__clz(static_cast<int>(span)));
#else
  return 31u - static_cast<uint32_t>(__builtin_clz(2 * span + 1));
#endif
}

}  // namespace qvlmem
