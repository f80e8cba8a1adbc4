// SPDX-License-Identifier: Apache-2.0
#include "kernels/coding/int_pack_simd.h"

#include <cstring>

#include "kernels/base/simd.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t kBlock = kIntPackBlock;
// Planes are handled four at a time, so that a width which changes by one does not change the path.
constexpr uint32_t kStep = 4;

HWY_INLINE uint32_t steps_of(uint32_t width) { return (width + kStep - 1) / kStep; }

#if HWY_TARGET == HWY_SCALAR

HWY_INLINE uint8_t block_header(const int32_t* values) {
  int32_t low = values[0], high = values[0];
  for (size_t i = 1; i < kBlock; ++i) {
    low = values[i] < low ? values[i] : low;
    high = values[i] > high ? values[i] : high;
  }
  return int_pack_header(low, high);
}

HWY_INLINE int32_t block_min(const int32_t* values) {
  int32_t low = values[0];
  for (size_t i = 1; i < kBlock; ++i) low = values[i] < low ? values[i] : low;
  return low;
}

// The transpose of a 32 x 32 bit matrix, row i bit j to row j bit i, by halves (Warren, Hacker's
// Delight, 2nd edition, 7-3, with the order of rows and bits the same).
HWY_INLINE void transpose_bits(uint32_t* rows) {
  uint32_t mask = 0x0000ffffu;
  for (uint32_t half = 16; half != 0; half >>= 1, mask ^= mask << half) {
    for (uint32_t i = 0; i < kBlock; i = (i + half + 1) & ~half) {
      const uint32_t swapped = ((rows[i] >> half) ^ rows[i + half]) & mask;
      rows[i] ^= swapped << half;
      rows[i + half] ^= swapped;
    }
  }
}

HWY_INLINE void pack_planes(const int32_t* values, uint32_t base, uint32_t width, uint8_t* out) {
  uint32_t rows[kBlock];
  for (size_t i = 0; i < kBlock; ++i) rows[i] = static_cast<uint32_t>(values[i]) - base;
  transpose_bits(rows);
  memcpy(out, rows, 4 * width);
}

HWY_INLINE void unpack_planes(const uint8_t* in, uint32_t base, uint32_t width, int32_t* values) {
  uint32_t rows[kBlock] = {};
  memcpy(rows, in, 4 * width);
  transpose_bits(rows);
  for (size_t i = 0; i < kBlock; ++i) values[i] = static_cast<int32_t>(rows[i] + base);
}

#else

// 32 byte lanes, or 4 times 8 integers, on AVX2 and AVX-512 alike.
const hn::CappedTag<uint8_t, kBlock> kD8;
const hn::RebindToSigned<decltype(kD8)> kI8;
const hn::RepartitionToWide<decltype(kD8)> kD16;
const hn::CappedTag<int32_t, 8> kI32;
using Bytes = hn::Vec<decltype(kD8)>;
using Ints = hn::Vec<decltype(kI32)>;

HWY_INLINE int32_t smallest(Ints v) {
  __m128i m = _mm_min_epi32(_mm256_castsi256_si128(v.raw), _mm256_extracti128_si256(v.raw, 1));
  m = _mm_min_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_min_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return _mm_cvtsi128_si32(m);
}

HWY_INLINE int32_t largest(Ints v) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v.raw), _mm256_extracti128_si256(v.raw, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return _mm_cvtsi128_si32(m);
}

HWY_INLINE Ints fold_min(const int32_t* values) {
  return hn::Min(hn::Min(hn::LoadU(kI32, values), hn::LoadU(kI32, values + 8)),
                 hn::Min(hn::LoadU(kI32, values + 16), hn::LoadU(kI32, values + 24)));
}

HWY_INLINE uint8_t block_header(const int32_t* values) {
  const Ints high = hn::Max(hn::Max(hn::LoadU(kI32, values), hn::LoadU(kI32, values + 8)),
                            hn::Max(hn::LoadU(kI32, values + 16), hn::LoadU(kI32, values + 24)));
  return int_pack_header(smallest(fold_min(values)), largest(high));
}

HWY_INLINE int32_t block_min(const int32_t* values) { return smallest(fold_min(values)); }

template <int kBits>
HWY_INLINE void store_bit(Bytes v, uint8_t* out) {
  // What the shift carries into the next byte stays below its top bit.
  const Bytes top = hn::BitCast(kD8, hn::ShiftLeft<kBits>(hn::BitCast(kD16, v)));
  hn::StoreMaskBits(kI8, hn::MaskFromVec(hn::BitCast(kI8, top)), out);
}

// Byte `byte` of each of the 32 integers, in order.
HWY_INLINE Bytes bytes_of(const Ints* v, uint32_t byte) {
  const __m128i count = _mm_cvtsi32_si128(static_cast<int>(8 * byte));
  const __m256i mask = _mm256_set1_epi32(0xff);
  const __m256i a = _mm256_and_si256(_mm256_srl_epi32(v[0].raw, count), mask);
  const __m256i b = _mm256_and_si256(_mm256_srl_epi32(v[1].raw, count), mask);
  const __m256i c = _mm256_and_si256(_mm256_srl_epi32(v[2].raw, count), mask);
  const __m256i d = _mm256_and_si256(_mm256_srl_epi32(v[3].raw, count), mask);
  const __m256i lanes = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
  return Bytes{_mm256_permutevar8x32_epi32(lanes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))};
}

HWY_INLINE void pack_planes(const int32_t* values, uint32_t base, uint32_t width, uint8_t* out) {
  const Ints vbase = hn::Set(kI32, static_cast<int32_t>(base));
  Ints v[4];
  for (size_t k = 0; k < 4; ++k) v[k] = hn::Sub(hn::LoadU(kI32, values + 8 * k), vbase);
  const uint32_t steps = steps_of(width);
  for (uint32_t step = 0; step < steps; step += 2, out += 32) {
    const Bytes bytes = bytes_of(v, step / 2);
    store_bit<7>(bytes, out);
    store_bit<6>(bytes, out + 4);
    store_bit<5>(bytes, out + 8);
    store_bit<4>(bytes, out + 12);
    if (step + 1 == steps) break;
    store_bit<3>(bytes, out + 16);
    store_bit<2>(bytes, out + 20);
    store_bit<1>(bytes, out + 24);
    store_bit<0>(bytes, out + 28);
  }
}

template <int kBit>
HWY_INLINE Bytes load_bit(const uint8_t* plane) {
  const auto mask = hn::LoadMaskBits(kD8, plane);
  return hn::IfThenElseZero(mask, hn::Set(kD8, static_cast<uint8_t>(1 << kBit)));
}

HWY_INLINE void unpack_planes(const uint8_t* in, uint32_t base, uint32_t width, int32_t* values) {
  const hn::CappedTag<uint8_t, 8> d8x8;
  const uint32_t steps = steps_of(width);
  Ints v[4];
  for (size_t k = 0; k < 4; ++k) v[k] = hn::Zero(kI32);
  for (uint32_t step = 0; step < steps; step += 2, in += 32) {
    Bytes bytes = hn::Or(hn::Or(load_bit<0>(in), load_bit<1>(in + 4)),
                         hn::Or(load_bit<2>(in + 8), load_bit<3>(in + 12)));
    if (step + 1 < steps) {
      const Bytes high = hn::Or(hn::Or(load_bit<4>(in + 16), load_bit<5>(in + 20)),
                                hn::Or(load_bit<6>(in + 24), load_bit<7>(in + 28)));
      bytes = hn::Or(bytes, high);
    }
    HWY_ALIGN uint8_t lanes[kBlock];
    hn::Store(bytes, kD8, lanes);
    const __m128i count = _mm_cvtsi32_si128(static_cast<int>(4 * step));
    for (size_t k = 0; k < 4; ++k) {
      const Ints wide = hn::PromoteTo(kI32, hn::Load(d8x8, lanes + 8 * k));
      v[k] = hn::Or(v[k], Ints{_mm256_sll_epi32(wide.raw, count)});
    }
  }
  // The last step brought planes of the next block: bits from `width` on are not ours.
  const Ints keep = hn::Set(kI32, static_cast<int32_t>((uint64_t{1} << width) - 1));
  const Ints vbase = hn::Set(kI32, static_cast<int32_t>(base));
  for (size_t k = 0; k < 4; ++k) {
    hn::StoreU(hn::Add(hn::And(v[k], keep), vbase), kI32, values + 8 * k);
  }
}

#endif

HWY_INLINE uint32_t base_in_payload(const uint8_t* payload) {
  uint32_t base;
  memcpy(&base, payload, 4);
  return base;
}

// Writes one payload; returns its bytes.
HWY_INLINE size_t pack_block(const int32_t* values, uint8_t header, uint8_t* out) {
  uint32_t base = int_pack_base(header);
  if (int_pack_kind(header) == IntPackKind::kBased) {
    base = static_cast<uint32_t>(block_min(values));
    memcpy(out, &base, 4);
    out += 4;
  }
  pack_planes(values, base, int_pack_width(header), out);
  return int_pack_payload_bytes(header);
}

HWY_INLINE void unpack_block(const uint8_t* payload, uint8_t header, int32_t* values) {
  uint32_t base = int_pack_base(header);
  if (int_pack_kind(header) == IntPackKind::kBased) {
    base = base_in_payload(payload);
    payload += 4;
  }
  unpack_planes(payload, base, int_pack_width(header), values);
}

}  // namespace

size_t int_pack_measure(const int32_t* values, size_t blocks, uint8_t* headers) {
  size_t bytes = 0;
  for (size_t b = 0; b < blocks; ++b) {
    headers[b] = block_header(values + b * kBlock);
    bytes += int_pack_payload_bytes(headers[b]);
  }
  return bytes;
}

size_t int_pack(const int32_t* values, const uint8_t* headers, size_t blocks, uint8_t* payload,
                size_t capacity) {
  size_t at = 0;
  for (size_t b = 0; b < blocks; ++b) {
    const size_t bytes = int_pack_payload_bytes(headers[b]);
    if (HWY_LIKELY(capacity - at >= bytes + kIntPackSlack)) {
      pack_block(values + b * kBlock, headers[b], payload + at);
    } else {
      if (capacity - at < bytes) return SIZE_MAX;
      uint8_t copy[kIntPackMaxBytes + kIntPackSlack];
      pack_block(values + b * kBlock, headers[b], copy);
      if (bytes != 0) memcpy(payload + at, copy, bytes);  // an empty payload may have no address
    }
    at += bytes;
  }
  return at;
}

size_t int_unpack_measure(const uint8_t* headers, size_t blocks) {
  size_t bytes = 0;
  uint32_t widest = 0;
  for (size_t b = 0; b < blocks; ++b) {
    const uint32_t width = int_pack_width(headers[b]);
    widest = width > widest ? width : widest;
    bytes += int_pack_payload_bytes(headers[b]);
  }
  return widest <= 32 ? bytes : SIZE_MAX;
}

void int_unpack(const uint8_t* headers, size_t blocks, const uint8_t* payload, size_t size,
                int32_t* values) {
  size_t at = 0;
  for (size_t b = 0; b < blocks; ++b) {
    const size_t bytes = int_pack_payload_bytes(headers[b]);
    if (HWY_LIKELY(size - at >= bytes + kIntPackSlack)) {
      unpack_block(payload + at, headers[b], values + b * kBlock);
    } else {
      uint8_t copy[kIntPackMaxBytes + kIntPackSlack] = {};
      if (bytes != 0) memcpy(copy, payload + at, bytes);
      unpack_block(copy, headers[b], values + b * kBlock);
    }
    at += bytes;
  }
}

QVLMEM_SIMD_END
