// SPDX-License-Identifier: Apache-2.0
#include "kernels/lossless/planes_simd.h"

#include <cstring>

#include "kernels/base/simd.h"
#include "kernels/lossless/lossless_math.h"

QVLMEM_SIMD_BEGIN
namespace {

#if HWY_TARGET != HWY_SCALAR
constexpr size_t kVector = kPlaneAlignment;
const hn::CappedTag<uint8_t, kVector> kD8;
using V8 = hn::Vec<decltype(kD8)>;
#endif

// ---- From scalars to words and back: one at a time, and as many as fit in 32 bytes ----

template <class W>
struct AsTheyAre {
  using Word = W;
  explicit AsTheyAre(int) {}

  HWY_INLINE Word map(Word bits) const { return bits; }
  HWY_INLINE Word unmap(Word word) const { return word; }
#if HWY_TARGET != HWY_SCALAR
  HWY_INLINE V8 map(V8 bits) const { return bits; }
  HWY_INLINE V8 unmap(V8 words) const { return words; }
#endif
};

template <class W>
struct Zigzag : ZigzagMap<W> {
  using Word = W;
  using ZigzagMap<W>::map;
  using ZigzagMap<W>::unmap;
  explicit Zigzag(int) {}

#if HWY_TARGET != HWY_SCALAR
  HWY_INLINE V8 map(V8 v) const {
    const hn::CappedTag<Word, kVector / sizeof(Word)> d;
    const hn::RebindToSigned<decltype(d)> di;
    const auto bits = hn::BitCast(d, v);
    const auto negative = hn::BitCast(d, hn::BroadcastSignBit(hn::BitCast(di, v)));
    return hn::BitCast(kD8, hn::Xor(hn::Add(bits, bits), negative));
  }
  HWY_INLINE V8 unmap(V8 v) const {
    const hn::CappedTag<Word, kVector / sizeof(Word)> d;
    const auto words = hn::BitCast(d, v);
    const auto negative = hn::Sub(hn::Zero(d), hn::And(words, hn::Set(d, Word{1})));
    return hn::BitCast(kD8, hn::Xor(hn::ShiftRight<1>(words), negative));
  }
#endif
};

template <class W>
struct SignBelowExponent : FloatMap<W> {
  using Word = W;
  using Base = FloatMap<W>;
  using Base::map;
  using Base::unmap;
  explicit SignBelowExponent(int mantissa_bits) : Base(mantissa_bits) {}

#if HWY_TARGET != HWY_SCALAR
  HWY_INLINE V8 map(V8 v) const {
    const hn::CappedTag<Word, kVector / sizeof(Word)> d;
    const auto bits = hn::BitCast(d, v);
    const auto low = hn::Set(d, static_cast<Word>(Base::sign | Base::mantissa));
    const auto at_sign = hn::And(hn::ShiftRightSame(bits, Base::shift), hn::Set(d, Base::sign));
    const auto rest = hn::And(bits, hn::Set(d, Base::mantissa));
    const auto exponent = hn::AndNot(low, hn::Add(bits, bits));
    return hn::BitCast(kD8, hn::Or(exponent, hn::Or(at_sign, rest)));
  }
  HWY_INLINE V8 unmap(V8 v) const {
    const hn::CappedTag<Word, kVector / sizeof(Word)> d;
    const auto words = hn::BitCast(d, v);
    const auto ends = hn::Set(d, static_cast<Word>(Base::top | Base::mantissa));
    const auto at_top = hn::And(hn::ShiftLeftSame(words, Base::shift), hn::Set(d, Base::top));
    const auto rest = hn::And(words, hn::Set(d, Base::mantissa));
    const auto exponent = hn::AndNot(ends, hn::ShiftRight<1>(words));
    return hn::BitCast(kD8, hn::Or(exponent, hn::Or(at_top, rest)));
  }
#endif
};

// ---- Planes ----

#if HWY_TARGET != HWY_SCALAR

// kCount vectors of words of kCount bytes become kCount planes, the lowest first: bytes at even
// places and bytes at odd places come apart, log2(kCount) times.
template <size_t kCount>
HWY_INLINE void take_apart(V8* v) {
  if constexpr (kCount > 1) {
    constexpr size_t kHalf = kCount / 2;
    V8 even[kHalf], odd[kHalf];
    for (size_t i = 0; i < kHalf; ++i) {
      even[i] = hn::ConcatEven(kD8, v[2 * i + 1], v[2 * i]);
      odd[i] = hn::ConcatOdd(kD8, v[2 * i + 1], v[2 * i]);
    }
    take_apart<kHalf>(even);
    take_apart<kHalf>(odd);
    for (size_t i = 0; i < kHalf; ++i) {
      v[2 * i] = even[i];
      v[2 * i + 1] = odd[i];
    }
  }
}

template <size_t kCount>
HWY_INLINE void put_together(V8* v) {
  if constexpr (kCount > 1) {
    constexpr size_t kHalf = kCount / 2;
    V8 even[kHalf], odd[kHalf];
    for (size_t i = 0; i < kHalf; ++i) {
      even[i] = v[2 * i];
      odd[i] = v[2 * i + 1];
    }
    put_together<kHalf>(even);
    put_together<kHalf>(odd);
    for (size_t i = 0; i < kHalf; ++i) {
      const V8 low = hn::InterleaveLower(kD8, even[i], odd[i]);
      const V8 high = hn::InterleaveUpper(kD8, even[i], odd[i]);
      v[2 * i] = hn::ConcatLowerLower(kD8, high, low);
      v[2 * i + 1] = hn::ConcatUpperUpper(kD8, high, low);
    }
  }
}

// Both return how many scalars they have done.
template <class Map>
size_t split_vectors(const Map& map, const uint8_t* x, size_t n, uint32_t stream_mask,
                     uint8_t* const* planes) {
  constexpr size_t kBytes = sizeof(typename Map::Word);
  uint8_t* plane[kBytes];
  for (size_t b = 0; b < kBytes; ++b) {
    plane[b] = planes[b];
    if (reinterpret_cast<uintptr_t>(plane[b]) % kVector != 0) stream_mask &= ~(1u << b);
  }
  const auto vectors = [&](size_t i, size_t count) HWY_ATTR {
    for (size_t b = 0; b < kBytes; ++b) {
      if ((stream_mask >> b & 1u) != 0) look_up_page_ahead(plane[b] + i);
    }
    for (const size_t end = i + count; i < end; i += kVector) {
      V8 v[kBytes];
      for (size_t k = 0; k < kBytes; ++k) {
        v[k] = map.map(hn::LoadU(kD8, x + i * kBytes + k * kVector));
      }
      take_apart<kBytes>(v);
      for (size_t b = 0; b < kBytes; ++b) {
        if ((stream_mask >> b & 1u) != 0) {
          hn::Stream(v[b], kD8, plane[b] + i);
        } else {
          hn::StoreU(v[b], kD8, plane[b] + i);
        }
      }
    }
  };
  const size_t whole = n / kVector * kVector;
  for_each_page(reinterpret_cast<const typename Map::Word*>(x), whole, vectors);
  return whole;
}

template <bool kStream, class Map>
size_t merge_vectors(const Map& map, const uint8_t* const* planes, size_t n, uint8_t* y) {
  constexpr size_t kBytes = sizeof(typename Map::Word);
  const uint8_t* plane[kBytes];
  for (size_t b = 0; b < kBytes; ++b) plane[b] = planes[b];
  const auto vectors = [&](size_t i, size_t count) HWY_ATTR {
    for (const size_t end = i + count; i < end; i += kVector) {
      V8 v[kBytes];
      for (size_t b = 0; b < kBytes; ++b) v[b] = hn::LoadU(kD8, plane[b] + i);
      put_together<kBytes>(v);
      for (size_t k = 0; k < kBytes; ++k) {
        uint8_t* out = y + i * kBytes + k * kVector;
        if (kStream) {
          hn::Stream(map.unmap(v[k]), kD8, out);
        } else {
          hn::StoreU(map.unmap(v[k]), kD8, out);
        }
      }
    }
  };
  const size_t whole = n / kVector * kVector;
  if (kStream) {
    for_each_page(reinterpret_cast<typename Map::Word*>(y), whole, vectors);
  } else {
    vectors(0, whole);
  }
  return whole;
}

#endif

template <class Map>
void split(const Map& map, const uint8_t* x, size_t n, uint32_t stream_mask,
           uint8_t* const* planes) {
  using Word = typename Map::Word;
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  i = split_vectors(map, x, n, stream_mask, planes);
#else
  (void)stream_mask;
#endif
  for (; i < n; ++i) {
    Word bits;
    memcpy(&bits, x + i * sizeof(Word), sizeof(Word));
    const Word word = map.map(bits);
    for (size_t b = 0; b < sizeof(Word); ++b) planes[b][i] = static_cast<uint8_t>(word >> (8 * b));
  }
}

template <class Map>
void merge(const Map& map, const uint8_t* const* planes, size_t n, bool stream, uint8_t* y) {
  using Word = typename Map::Word;
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  if (stream && reinterpret_cast<uintptr_t>(y) % kVector == 0) {
    i = merge_vectors<true>(map, planes, n, y);
  } else {
    i = merge_vectors<false>(map, planes, n, y);
  }
#else
  (void)stream;
#endif
  for (; i < n; ++i) {
    Word word = 0;
    for (size_t b = 0; b < sizeof(Word); ++b) {
      word = static_cast<Word>(word | static_cast<Word>(planes[b][i]) << (8 * b));
    }
    const Word bits = map.unmap(word);
    memcpy(y + i * sizeof(Word), &bits, sizeof(Word));
  }
}

// Calls f with the map of words of type Word.
template <class Word, class Function>
void with_map(LosslessMap map, const Function& f) {
  switch (map.kind) {
    case LosslessMap::kZigzag:
      return f(Zigzag<Word>(map.mantissa_bits));
    case LosslessMap::kFloat:
      return f(SignBelowExponent<Word>(map.mantissa_bits));
    case LosslessMap::kNone:
      break;
  }
  f(AsTheyAre<Word>(map.mantissa_bits));
}

template <class Function>
void with_map(size_t scalar_bytes, LosslessMap map, const Function& f) {
  switch (scalar_bytes) {
    case 1:
      return with_map<uint8_t>(map, f);
    case 2:
      return with_map<uint16_t>(map, f);
    case 4:
      return with_map<uint32_t>(map, f);
    default:
      return with_map<uint64_t>(map, f);
  }
}

}  // namespace

void split_planes(const void* x, size_t n, size_t scalar_bytes, LosslessMap map,
                  uint32_t stream_mask, uint8_t* const* planes) {
  with_map(scalar_bytes, map, [&](const auto& m) HWY_ATTR {
    split(m, static_cast<const uint8_t*>(x), n, stream_mask, planes);
  });
}

void merge_planes(const uint8_t* const* planes, size_t n, size_t scalar_bytes, LosslessMap map,
                  bool stream, void* y) {
  with_map(scalar_bytes, map,
           [&](const auto& m) HWY_ATTR { merge(m, planes, n, stream, static_cast<uint8_t*>(y)); });
}

QVLMEM_SIMD_END
