// SPDX-License-Identifier: Apache-2.0
// What counting and coding share: where the streams are, and pairs of bytes.
#pragma once

#include <cstring>

#include "kernels/base/simd.h"
#include "kernels/coding/huffman_simd.h"

QVLMEM_SIMD_BEGIN
namespace {

HWY_INLINE size_t stream_stride(size_t n) { return (n + kHuffmanStreams - 1) / kHuffmanStreams; }

HWY_INLINE size_t stream_begin(size_t n, int stream) {
  const size_t begin = stream_stride(n) * static_cast<size_t>(stream);
  return begin < n ? begin : n;
}

HWY_INLINE size_t stream_length(size_t n, int stream) {
  return stream_begin(n, stream + 1) - stream_begin(n, stream);
}

// Two bytes in one index, where all bytes are within a range of 64, so that their lowest six bits
// tell them apart.
constexpr size_t kPairRange = 64;

HWY_INLINE size_t pair_index(const uint8_t* bytes) {
  uint16_t pair;
  memcpy(&pair, bytes, 2);
#if HWY_TARGET == HWY_SCALAR
  return (pair & 63u) | (pair >> 2 & (63u << 6));
#else
  return _pext_u32(pair, 0x3f3f);
#endif
}

}  // namespace
QVLMEM_SIMD_END
