// SPDX-License-Identifier: Apache-2.0
// What encoding and decoding share on CUDA. Pieces are staged as arrays of words of at most 4
// bytes: scalars of 8 as their low and their high halves.
#pragma once

#include <type_traits>

#include "kernels/coding/byte_pack_device.cuh"
#include "kernels/coding/pieces_device.cuh"
#include "kernels/lossless/lossless_cuda.h"
#include "kernels/lossless/lossless_math.h"

namespace qvlmem {

// Planes times pieces of a unit: the same for every size of a scalar.
constexpr int kUnitPieces = static_cast<int>(kLosslessUnitBytes) / kPieceValues;
// A mode of no plane: a unit that was refused.
constexpr uint32_t kRefusedMode = 0xff;

// The first four bytes, as a word: arrays of constants have no address on a device.
constexpr uint32_t kMagicWord = uint32_t{kLosslessMagic[0]} | uint32_t{kLosslessMagic[1]} << 8 |
                                uint32_t{kLosslessMagic[2]} << 16 |
                                uint32_t{kLosslessMagic[3]} << 24;

// Where a unit's parts lie, found before its pieces are worked on independently.
struct alignas(16) UnitLayout {
  uint32_t entries[kMaxPlanes];  // as in the unit
  uint32_t places[kMaxPlanes];   // likewise, with where the plane begins in the unit for its bytes
  // Of packed planes, by plane, then piece: words before the piece's in the low 20 bits, the
  // piece's own above.
  uint32_t words[kUnitPieces];
  int64_t begin;  // of the unit in the bytes, while decoding
};

template <int kScalarBytes>
struct Piece {
  static constexpr int kWordBytes = kScalarBytes < 4 ? kScalarBytes : 4;
  static constexpr int kArrays = kScalarBytes / kWordBytes;
  static constexpr int kArrayChunks = kPieceValues * kWordBytes / 16;
  static constexpr int kWords = 8 * kWordBytes;  // registers of a lane's block in an array
  static constexpr int kPieces = kUnitPieces / kScalarBytes;  // of a full unit
  static constexpr int kVector = 16 / kScalarBytes;           // scalars of a chunk
};

struct LosslessShape {
  int64_t scalars, unit_count, header_bytes, unit_bound_bytes;
  bool vectors;  // the tensor is aligned to 16 bytes
};

inline LosslessShape lossless_shape(const LosslessPlan& plan, const void* tensor) {
  return {plan.scalars, plan.unit_count, plan.header_bytes, plan.unit_bound_bytes,
          is_aligned(tensor, 16)};
}

// The map of a tensor's scalars: in words of 32 bits, or of 64 where these hold one.
template <int kScalarBytes>
struct ScalarMap {
  using Word = std::conditional_t<kScalarBytes == 8, uint64_t, uint32_t>;

  explicit ScalarMap(LosslessMap m)
      : kind(m.kind), zigzag(8 * kScalarBytes), floats(m.mantissa_bits, 8 * kScalarBytes) {}

  __device__ Word map(Word bits) const {
    if (kind == LosslessMap::kFloat) return floats.map(bits);
    return kind == LosslessMap::kZigzag ? zigzag.map(bits) : bits;
  }
  __device__ Word unmap(Word word) const {
    if (kind == LosslessMap::kFloat) return floats.unmap(word);
    return kind == LosslessMap::kZigzag ? zigzag.unmap(word) : word;
  }

  LosslessMap::Kind kind;
  ZigzagMap<Word> zigzag;
  FloatMap<Word> floats;
};

template <int kScalarBytes>
using Scalar = std::conditional_t<
    kScalarBytes == 1, uint8_t,
    std::conditional_t<kScalarBytes == 2, uint16_t,
                       std::conditional_t<kScalarBytes == 4, uint32_t, uint64_t>>>;

// The 16 bytes of a chunk as scalars and as words.
template <int kScalarBytes>
union Chunk {
  uint4 raw;
  Scalar<kScalarBytes> scalar[16 / kScalarBytes];
  typename ScalarMap<kScalarBytes>::Word word[kScalarBytes == 8 ? 2 : 4];
  uint2 pair[2];
};

// Scalars of a unit.
template <int kScalarBytes>
__device__ inline int unit_length(const LosslessShape& shape, int64_t unit) {
  constexpr int kFull = static_cast<int>(kLosslessUnitBytes) / kScalarBytes;
  return static_cast<int>(min(static_cast<int64_t>(kFull), shape.scalars - unit * kFull));
}

// Copies `bytes` bytes, a warp's lanes together.
__device__ inline void copy_bytes(const uint8_t* from, int bytes, uint8_t* to) {
  int done = 0;
  if (((reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to)) & 15u) == 0) {
    done = bytes / 16 * 16;
    for (int c = warp_lane(); c < bytes / 16; c += kWarpLanes) {
      reinterpret_cast<uint4*>(to)[c] = reinterpret_cast<const uint4*>(from)[c];
    }
  }
  for (int i = done + warp_lane(); i < bytes; i += kWarpLanes) to[i] = from[i];
}

// Calls f with the bytes of a scalar as an integral_constant.
template <class F>
auto with_scalar_bytes(int64_t scalar_bytes, const F& f) {
  switch (scalar_bytes) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 4:
      return f(std::integral_constant<int, 4>());
    default:
      return f(std::integral_constant<int, 8>());
  }
}

}  // namespace qvlmem
