// SPDX-License-Identifier: Apache-2.0
#include "kernels/coding/byte_pack_simd.h"

#include <cstring>

#include "kernels/base/simd.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t kBlock = kBytePackBlock;

#if HWY_TARGET == HWY_SCALAR

using Block = const uint8_t*;

HWY_INLINE Block load_block(const uint8_t* bytes) { return bytes; }

HWY_INLINE void block_range(Block block, uint32_t* low, uint32_t* high) {
  uint32_t smallest = block[0], largest = block[0];
  for (size_t i = 1; i < kBlock; ++i) {
    smallest = block[i] < smallest ? block[i] : smallest;
    largest = block[i] > largest ? block[i] : largest;
  }
  *low = smallest;
  *high = largest;
}

// The lowest bits of the 8 bytes of `word`, the first byte's lowest: the products of the
// multiplication meet in its top byte without carries.
HWY_INLINE uint32_t gather_low_bits(uint64_t word) {
  return static_cast<uint32_t>(((word & 0x0101010101010101u) * 0x0102040810204080u) >> 56);
}

// The inverse: bit i of `bits` as the lowest bit of byte i.
HWY_INLINE uint64_t scatter_low_bits(uint32_t bits) {
  const uint64_t selected = (bits * 0x0101010101010101u) & 0x8040201008040201u;
  return ((selected + 0x7f7f7f7f7f7f7f7fu) >> 7) & 0x0101010101010101u;
}

HWY_INLINE void pack_block(Block block, uint32_t base, uint32_t width, uint8_t* out) {
  for (size_t part = 0; part < kBlock / 8; ++part) {
    uint64_t word;
    memcpy(&word, block + 8 * part, 8);
    word -= base * 0x0101010101010101u;  // no byte borrows: none is below the base
    for (uint32_t bit = 0; bit < width; ++bit) {
      out[4 * bit + part] = static_cast<uint8_t>(gather_low_bits(word >> bit));
    }
  }
}

HWY_INLINE void unpack_block(const uint8_t* planes, uint32_t base, uint32_t width, uint8_t* out) {
  for (size_t part = 0; part < kBlock / 8; ++part) {
    uint64_t word = 0;
    for (uint32_t bit = 0; bit < width; ++bit) {
      word |= scatter_low_bits(planes[4 * bit + part]) << bit;
    }
    for (size_t i = 0; i < 8; ++i) {  // by bytes: hostile bases may overflow
      out[8 * part + i] = static_cast<uint8_t>((word >> (8 * i)) + base);
    }
  }
}

#else

// 32 lanes on AVX2 and AVX-512 alike.
const hn::CappedTag<uint8_t, kBlock> kD8;
const hn::RebindToSigned<decltype(kD8)> kI8;
const hn::RepartitionToWide<decltype(kD8)> kD16;
using Block = hn::Vec<decltype(kD8)>;

HWY_INLINE Block load_block(const uint8_t* bytes) { return hn::LoadU(kD8, bytes); }

// PHMINPOSUW is the one horizontal minimum that x86 has.
HWY_INLINE uint32_t smallest_byte(__m128i bytes) {
  const __m128i pairs = _mm_min_epu8(bytes, _mm_srli_epi16(bytes, 8));  // high bytes become 0
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(pairs))) & 0xffu;
}

HWY_INLINE void block_range(Block block, uint32_t* low, uint32_t* high) {
  const __m128i a = _mm256_castsi256_si128(block.raw);
  const __m128i b = _mm256_extracti128_si256(block.raw, 1);
  *low = smallest_byte(_mm_min_epu8(a, b));
  *high = 255u - smallest_byte(_mm_xor_si128(_mm_max_epu8(a, b), _mm_set1_epi8(-1)));
}

template <int kBits>
HWY_INLINE Block shift_left_bytes(Block v) {  // what crosses into a byte stays below its top bit
  return hn::BitCast(kD8, hn::ShiftLeft<kBits>(hn::BitCast(kD16, v)));
}

HWY_INLINE void store_top_bits(Block v, uint8_t* out) {
  hn::StoreMaskBits(kI8, hn::MaskFromVec(hn::BitCast(kI8, v)), out);
}

// Always four planes, or all eight: what is beyond the width is overwritten by the next block.
HWY_INLINE void pack_block(Block block, uint32_t base, uint32_t width, uint8_t* out) {
  const Block v = hn::Sub(block, hn::Set(kD8, static_cast<uint8_t>(base)));
  store_top_bits(shift_left_bytes<7>(v), out);
  store_top_bits(shift_left_bytes<6>(v), out + 4);
  store_top_bits(shift_left_bytes<5>(v), out + 8);
  store_top_bits(shift_left_bytes<4>(v), out + 12);
  if (HWY_UNLIKELY(width > 4)) {
    store_top_bits(shift_left_bytes<3>(v), out + 16);
    store_top_bits(shift_left_bytes<2>(v), out + 20);
    store_top_bits(shift_left_bytes<1>(v), out + 24);
    store_top_bits(v, out + 28);
  }
}

template <int kBit>
HWY_INLINE Block load_plane(const uint8_t* planes) {
  const auto mask = hn::LoadMaskBits(kD8, planes + 4 * kBit);
  return hn::IfThenElseZero(mask, hn::Set(kD8, static_cast<uint8_t>(1 << kBit)));
}

HWY_INLINE void unpack_block(const uint8_t* planes, uint32_t base, uint32_t width, uint8_t* out) {
  Block v = hn::Or(hn::Or(load_plane<0>(planes), load_plane<1>(planes)),
                   hn::Or(load_plane<2>(planes), load_plane<3>(planes)));
  if (HWY_UNLIKELY(width > 4)) {
    v = hn::Or(v, hn::Or(hn::Or(load_plane<4>(planes), load_plane<5>(planes)),
                         hn::Or(load_plane<6>(planes), load_plane<7>(planes))));
  }
  v = hn::And(v, hn::Set(kD8, static_cast<uint8_t>((1u << width) - 1)));
  hn::StoreU(hn::Add(v, hn::Set(kD8, static_cast<uint8_t>(base))), kD8, out);
}

#endif

// Sum of the widths; false where one is above 8.
HWY_INLINE bool sum_widths(const uint8_t* widths, size_t blocks, size_t* sum) {
  size_t total = 0;
  uint32_t largest = 0;
  for (size_t i = 0; i < blocks / 2; ++i) {
    const uint32_t low = widths[i] & 0x0fu, high = widths[i] >> 4;
    total += low + high;
    largest = low > largest ? low : largest;
    largest = high > largest ? high : largest;
  }
  if (blocks % 2 != 0) {
    const uint32_t last = widths[blocks / 2];  // the spare nibble is 0, or this is above 8
    total += last;
    largest = last > largest ? last : largest;
  }
  *sum = total;
  return largest <= 8;
}

// Packs one block; returns its width.
HWY_INLINE uint32_t append_block(Block block, uint8_t* base, uint8_t** planes) {
  uint32_t low, high;
  block_range(block, &low, &high);
  const uint32_t width = byte_pack_width(high - low);
  *base = static_cast<uint8_t>(low);
  pack_block(block, low, width, *planes);
  *planes += 4 * width;
  return width;
}

// A short last block, filled up with its smallest byte.
struct FilledBlock {
  HWY_INLINE FilledBlock(const uint8_t* some, size_t n) {
    uint8_t smallest = some[0];
    for (size_t i = 1; i < n; ++i) smallest = some[i] < smallest ? some[i] : smallest;
    memset(bytes, smallest, kBlock);
    memcpy(bytes, some, n);
  }
  HWY_ALIGN uint8_t bytes[kBlock];
};

// A block near the end: read into a copy, for a block's planes are read as 32 bytes.
HWY_INLINE void unpack_last(const BytePackReader& r, uint32_t base, uint32_t width, uint8_t* out) {
  HWY_ALIGN uint8_t planes[kBlock] = {};
  memcpy(planes, r.planes, 4 * width);
  unpack_block(planes, base, width, out);
}

}  // namespace

size_t byte_pack_measure(const uint8_t* bytes, size_t n) {
  size_t sum = 0, i = 0;
  uint32_t low, high;
  for (; i + kBlock <= n; i += kBlock) {
    block_range(load_block(bytes + i), &low, &high);
    sum += byte_pack_width(high - low);
  }
  if (i < n) {
    const FilledBlock last(bytes + i, n - i);
    block_range(load_block(last.bytes), &low, &high);
    sum += byte_pack_width(high - low);
  }
  return byte_pack_header_bytes(n) + 4 * sum;
}

void byte_pack(const uint8_t* bytes, size_t n, BytePackWriter* writer) {
  BytePackWriter w = *writer;
  size_t i = 0;
  for (; i + 2 * kBlock <= n; i += 2 * kBlock) {
    const uint32_t first = append_block(load_block(bytes + i), w.bases, &w.planes);
    const uint32_t second = append_block(load_block(bytes + i + kBlock), w.bases + 1, &w.planes);
    *w.widths++ = static_cast<uint8_t>(first | second << 4);
    w.bases += 2;
  }
  for (uint32_t shift = 0; i < n; i += kBlock, shift += 4) {
    const FilledBlock last(bytes + i, n - i < kBlock ? n - i : kBlock);
    const uint32_t width = append_block(load_block(last.bytes), w.bases++, &w.planes);
    *w.widths = static_cast<uint8_t>(shift == 0 ? width : *w.widths | width << shift);
  }
  *writer = w;
}

Status byte_unpack_begin(const uint8_t* packed, size_t size, size_t n, BytePackReader* reader) {
  const size_t blocks = byte_pack_blocks(n), header = byte_pack_header_bytes(n);
  if (size < header) return Status::kCorrupt;
  size_t sum;
  if (!sum_widths(packed, blocks, &sum) || size - header != 4 * sum) return Status::kCorrupt;
  *reader = BytePackReader{packed, packed + (header - blocks), packed + header, packed + size};
  return Status::kOk;
}

void byte_unpack(BytePackReader* reader, size_t n, uint8_t* bytes) {
  BytePackReader r = *reader;
  const size_t blocks = byte_pack_blocks(n);
  size_t i = 0;
  for (; i + 2 <= blocks && r.end - r.planes >= static_cast<ptrdiff_t>(2 * kBlock); i += 2) {
    const uint32_t first = *r.widths & 0x0fu, second = *r.widths >> 4;
    unpack_block(r.planes, r.bases[0], first, bytes + i * kBlock);
    r.planes += 4 * first;
    unpack_block(r.planes, r.bases[1], second, bytes + (i + 1) * kBlock);
    r.planes += 4 * second;
    r.bases += 2;
    ++r.widths;
  }
  for (uint32_t shift = 0; i < blocks; ++i, shift ^= 4) {
    const uint32_t width = (*r.widths >> shift) & 0x0fu;
    unpack_last(r, *r.bases++, width, bytes + i * kBlock);
    r.planes += 4 * width;
    if (shift != 0) ++r.widths;
  }
  *reader = r;
}

QVLMEM_SIMD_END
