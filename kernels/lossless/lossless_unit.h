// SPDX-License-Identifier: Apache-2.0
// What encoding and decoding a unit share.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/base/stream.h"
#include "kernels/coding/byte_pack_simd.h"
#include "kernels/coding/huffman.h"
#include "kernels/lossless/little_endian.h"
#include "kernels/lossless/lossless.h"
#include "kernels/lossless/lossless_math.h"

namespace qvlmem {

constexpr size_t kEntriesBytes = static_cast<size_t>(kLosslessEntriesBytes);
constexpr size_t kUnitBytes = static_cast<size_t>(kLosslessUnitBytes);
static_assert(kUnitBytes <= kHuffmanMaxCount, "a plane must fit the coder");
static_assert(kUnitBytes < size_t{1} << 24, "a plane's size must fit its entry");

// Scalars worked on at a time: what passes between the steps stays in L1, and the steps keep the
// memory busy in turn.
constexpr size_t kPieceScalars = 1024;
static_assert(kPieceScalars % kBytePackPiece == 0, "pieces must be whole blocks");

// Asks for `bytes` bytes from a page beyond `from` on: the hardware's own prefetching ends at
// pages, and pieces are so short that it would begin anew with every other one. Touches nothing.
inline void prefetch_page_ahead(const uint8_t* from, size_t bytes) {
  const uintptr_t ahead = reinterpret_cast<uintptr_t>(from) + 4096;
  for (size_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(ahead + i));
  }
}

// One unit's share of the scalars.
struct LosslessUnit {
  size_t scalars;      // in it
  size_t plane_count;  // bytes of a scalar
  size_t offset;       // of its first byte in the tensor
};

inline LosslessUnit lossless_unit(const LosslessPlan& plan, int64_t unit) {
  const int64_t first = unit * plan.unit_scalars;
  return LosslessUnit{static_cast<size_t>(std::min(plan.unit_scalars, plan.scalars - first)),
                      static_cast<size_t>(plan.scalar_bytes),
                      static_cast<size_t>(first * plan.scalar_bytes)};
}

}  // namespace qvlmem
