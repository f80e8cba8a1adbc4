// SPDX-License-Identifier: Apache-2.0
// 32-bit integers bit-packed in blocks of 32, each block with a width of its own.
//
// Layout. A block is one header byte, width (0 to 32) in the low 6 bits and kind in the high 2, and
// a payload. The block's values are base + u with 0 <= u < 2^width, modulo 2^32; the kind says what
// the base is: kPositive 0, kNegative 1 - 2^width, kCentred -2^(width - 1), kBased an int32 that
// opens the payload. Then come `width` little-endian words, one for each bit of u from the lowest;
// bit i of a word belongs to value i. So a vector of 32 byte lanes handles a bit of all values at
// once, and on a GPU a word is the ballot of a warp; no lane count is in the format.
//
// Headers of many blocks stand together, and their payloads after one another: the caller places
// both.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/macros.h"

namespace qvlmem {

constexpr size_t kIntPackBlock = 32;
// Bytes of the longest block, header included.
constexpr size_t kIntPackMaxBytes = 1 + 4 + 4 * 32;
// What int_pack writes and int_unpack reads at most beyond a block's payload, where there is room.
constexpr size_t kIntPackSlack = 12;

enum class IntPackKind : uint8_t { kPositive = 0, kNegative = 1, kCentred = 2, kBased = 3 };

QVLMEM_HD inline uint32_t int_pack_width(uint8_t header) { return header & 63u; }

QVLMEM_HD inline IntPackKind int_pack_kind(uint8_t header) {
  return static_cast<IntPackKind>(header >> 6);
}

// Bytes of the payload. REQUIRES: int_pack_width(header) <= 32.
QVLMEM_HD inline uint32_t int_pack_payload_bytes(uint8_t header) {
  return 4 * int_pack_width(header) + (int_pack_kind(header) == IntPackKind::kBased ? 4u : 0u);
}

// Bits that hold 0..value.
QVLMEM_HD inline uint32_t int_pack_bits(uint32_t value) {
#if defined(__CUDA_ARCH__)
  return 32u - static_cast<uint32_t>(__clz(static_cast<int>(value)));
#else
  return value == 0 ? 0u : 32u - static_cast<uint32_t>(__builtin_clz(value));
#endif
}

// The header of the shortest block that holds values from low to high.
QVLMEM_HD inline uint8_t int_pack_header(int32_t low, int32_t high) {
  const uint32_t ulow = static_cast<uint32_t>(low), uhigh = static_cast<uint32_t>(high);
  IntPackKind kind = IntPackKind::kCentred;
  uint32_t width;
  if (low >= 0) {
    kind = IntPackKind::kPositive;
    width = int_pack_bits(uhigh);
  } else if (high <= 0) {
    kind = IntPackKind::kNegative;
    width = int_pack_bits(0u - ulow);
  } else {
    width = 1 + int_pack_bits(uhigh > ~ulow ? uhigh : ~ulow);
  }
  const uint32_t based = int_pack_bits(uhigh - ulow);
  if (based + 1 < width) {  // its base costs as much as one bit of all values
    kind = IntPackKind::kBased;
    width = based;
  }
  return static_cast<uint8_t>(width | static_cast<uint32_t>(kind) << 6);
}

// The base that the kind implies (kBased: 0, for the payload tells).
QVLMEM_HD inline uint32_t int_pack_base(uint8_t header) {
  const uint64_t span = uint64_t{1} << int_pack_width(header);
  switch (int_pack_kind(header)) {
    case IntPackKind::kNegative:
      return static_cast<uint32_t>(1 - span);
    case IntPackKind::kCentred:
      return static_cast<uint32_t>(0 - (span >> 1));
    default:
      return 0;
  }
}

}  // namespace qvlmem
