// SPDX-License-Identifier: Apache-2.0
#include "kernels/sparse/sparse_decode_simd.h"

#include "kernels/sparse/sparse_lanes.h"

QVLMEM_SIMD_BEGIN
namespace {

// ---- Positions ----

// Elements are zeroed, filled and sent on in pieces of this size. A larger one would cover most
// offsets within a 4 KiB page, and loads of entries then wait for stores that only look alike.
constexpr int64_t kPieceBytes = 2048;

// uint16 positions at any address.
struct Unaligned16 {
  const uint8_t* bytes;
  HWY_INLINE int64_t operator[](int64_t k) const {
    uint16_t value;
    memcpy(&value, bytes + k * 2, 2);
    return value;
  }
};

template <class T>
HWY_INLINE void zero(T* y, int64_t n) {
  const hn::ScalableTag<T> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<T>());
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(hn::Zero(d), d, y + i);
  for (; i < n; ++i) y[i] = T{0};
}

template <class T>
HWY_INLINE void send(const T* piece, int64_t n, T* y) {
  const hn::ScalableTag<T> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<T>());
  int64_t i = 0;
  if ((reinterpret_cast<uintptr_t>(y) & (kLanes * sizeof(T) - 1)) == 0) {
    look_up_page_ahead(y);
    for (; i + kLanes <= n; i += kLanes) hn::Stream(hn::Load(d, piece + i), d, y + i);
  }
  memcpy(y + i, piece + i, static_cast<size_t>(n - i) * sizeof(T));
}

// Fills positions [begin, stop) of `out`, which starts at `begin`, from the entries of
// [first, limit) before `stop`. Returns the first behind; -1 where they are not strictly increasing
// from `begin` on.
template <class T, class Index>
HWY_INLINE int64_t fill(Index index, int64_t first, int64_t limit, const T* values, int64_t begin,
                        int64_t stop, T* out) {
  // Checked first and as a whole, so that the loop of stores stays free of branches.
  int64_t last = first, previous = begin - 1;
  bool ordered = true;
  for (; last < limit && index[last] < stop; ++last) {
    ordered &= index[last] > previous;
    previous = index[last];
  }
  if (!ordered) return -1;
  T* const shifted = out - begin;
#pragma GCC unroll 4
  for (int64_t k = first; k < last; ++k) shifted[index[k]] = values[k];
  return last;
}

#if HWY_TARGET != HWY_SCALAR
// Eight entries at a time: their positions and values come by one load each, where loads one by one
// would wait for stores at the same place in another page.
HWY_INLINE void store_lanes(__m256i at, const uint32_t* values, uint32_t* out) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
  const __m128i low = _mm256_castsi256_si128(v), high = _mm256_extracti128_si256(v, 1);
  const uint64_t pairs[4] = {static_cast<uint64_t>(_mm256_extract_epi64(at, 0)),
                             static_cast<uint64_t>(_mm256_extract_epi64(at, 1)),
                             static_cast<uint64_t>(_mm256_extract_epi64(at, 2)),
                             static_cast<uint64_t>(_mm256_extract_epi64(at, 3))};
  out[static_cast<uint32_t>(pairs[0])] = static_cast<uint32_t>(_mm_extract_epi32(low, 0));
  out[pairs[0] >> 32] = static_cast<uint32_t>(_mm_extract_epi32(low, 1));
  out[static_cast<uint32_t>(pairs[1])] = static_cast<uint32_t>(_mm_extract_epi32(low, 2));
  out[pairs[1] >> 32] = static_cast<uint32_t>(_mm_extract_epi32(low, 3));
  out[static_cast<uint32_t>(pairs[2])] = static_cast<uint32_t>(_mm_extract_epi32(high, 0));
  out[pairs[2] >> 32] = static_cast<uint32_t>(_mm_extract_epi32(high, 1));
  out[static_cast<uint32_t>(pairs[3])] = static_cast<uint32_t>(_mm_extract_epi32(high, 2));
  out[pairs[3] >> 32] = static_cast<uint32_t>(_mm_extract_epi32(high, 3));
}

HWY_INLINE void store_lanes(__m256i at, const uint16_t* values, uint16_t* out) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
  const uint64_t pairs[4] = {static_cast<uint64_t>(_mm256_extract_epi64(at, 0)),
                             static_cast<uint64_t>(_mm256_extract_epi64(at, 1)),
                             static_cast<uint64_t>(_mm256_extract_epi64(at, 2)),
                             static_cast<uint64_t>(_mm256_extract_epi64(at, 3))};
  out[static_cast<uint32_t>(pairs[0])] = static_cast<uint16_t>(_mm_extract_epi16(v, 0));
  out[pairs[0] >> 32] = static_cast<uint16_t>(_mm_extract_epi16(v, 1));
  out[static_cast<uint32_t>(pairs[1])] = static_cast<uint16_t>(_mm_extract_epi16(v, 2));
  out[pairs[1] >> 32] = static_cast<uint16_t>(_mm_extract_epi16(v, 3));
  out[static_cast<uint32_t>(pairs[2])] = static_cast<uint16_t>(_mm_extract_epi16(v, 4));
  out[pairs[2] >> 32] = static_cast<uint16_t>(_mm_extract_epi16(v, 5));
  out[static_cast<uint32_t>(pairs[3])] = static_cast<uint16_t>(_mm_extract_epi16(v, 6));
  out[pairs[3] >> 32] = static_cast<uint16_t>(_mm_extract_epi16(v, 7));
}

template <class T>
HWY_INLINE int64_t fill(const int32_t* index, int64_t first, int64_t limit, const T* values,
                        int64_t begin, int64_t stop, T* out) {
  if (first == limit || index[first] >= stop) return first;
  if (index[first] < begin) return -1;
  T* const shifted = out - begin;
  shifted[index[first]] = values[first];
  const __m256i end = _mm256_set1_epi32(static_cast<int32_t>(HWY_MIN(stop, int64_t{INT32_MAX})));
  int64_t last = first + 1;
  for (; last + 8 <= limit; last += 8) {
    const __m256i* at = reinterpret_cast<const __m256i*>(index + last);
    const __m256i position = _mm256_loadu_si256(at);
    const __m256i before = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index + last - 1));
    const __m256i good =
        _mm256_and_si256(_mm256_cmpgt_epi32(end, position), _mm256_cmpgt_epi32(position, before));
    // The loop below finds out which it is: the end of the piece, or positions out of order.
    if (_mm256_movemask_epi8(good) != -1) break;
    store_lanes(position, values + last, shifted);
  }
  for (; last < limit && index[last] < stop; ++last) {
    if (index[last] <= index[last - 1]) return -1;
    shifted[index[last]] = values[last];
  }
  return last;
}
#endif

template <class T, class Index>
int64_t scatter(Index index, int64_t origin, int64_t first, int64_t limit, const T* values,
                int64_t begin, int64_t end, bool stream, T* y) {
  constexpr int64_t kPiece = kPieceBytes / sizeof(T);
  HWY_ALIGN T piece[kPiece];
  begin -= origin;  // positions count from 0 now
  end -= origin;
  y += origin;
  for (; begin < end; begin += kPiece) {
    const int64_t stop = HWY_MIN(begin + kPiece, end);
    T* const out = stream ? piece : y + begin;
    zero(out, stop - begin);
    first = fill(index, first, limit, values, begin, stop, out);
    if (first < 0) return -1;
    if (stream) send(piece, stop - begin, y + begin);
  }
  return first;
}

template <class T>
int64_t scatter_typed(const void* positions, SparsePositions kind, int64_t origin, int64_t first,
                      int64_t limit, const void* values, int64_t begin, int64_t end, bool stream,
                      void* y) {
  const auto run = [&](auto index) HWY_ATTR {
    return scatter(index, origin, first, limit, static_cast<const T*>(values), begin, end, stream,
                   static_cast<T*>(y));
  };
  switch (kind) {
    case SparsePositions::kInt32:
      return run(static_cast<const int32_t*>(positions));
    case SparsePositions::kInt64:
      return run(static_cast<const int64_t*>(positions));
    case SparsePositions::kUInt8:
      return run(static_cast<const uint8_t*>(positions));
    case SparsePositions::kUInt16:
      break;
  }
  return run(Unaligned16{static_cast<const uint8_t*>(positions)});
}

// ---- Bits ----

#if HWY_TARGET != HWY_SCALAR
HWY_INLINE hn::Vec<DEight> load_eight(const uint32_t* p) { return hn::LoadU(DEight(), p); }

HWY_INLINE hn::Vec<DEight> load_eight(const uint16_t* p) {
  return hn::PromoteTo(DEight(), hn::LoadU(hn::Rebind<uint16_t, DEight>(), p));
}

HWY_INLINE hn::Vec<DEight> narrow_eight(hn::Vec<DEight> v, const uint32_t*) { return v; }

HWY_INLINE hn::Vec<hn::Rebind<uint16_t, DEight>> narrow_eight(hn::Vec<DEight> v, const uint16_t*) {
  return hn::TruncateTo(hn::Rebind<uint16_t, DEight>(), v);
}

// Spreads the first values over the eight lanes whose bit is set in `byte`, zero elsewhere. By the
// table on AVX-512 too: its own expand is the slower there (measured on Zen 5).
template <bool kStream, class T>
HWY_INLINE void expand_eight(uint32_t byte, hn::Vec<DEight> lane_bits, const T* values, T* y) {
  const DEight d;
  const hn::Simd<T, 8, 0> dt;
  const auto order = hn::IndicesFromVec(d, lane_order(kLaneTables.spread[byte]));
  const auto stored = hn::TestBit(hn::Set(d, byte), lane_bits);
  const auto spread = hn::IfThenElseZero(stored, hn::TableLookupLanes(load_eight(values), order));
  if (kStream) {
    hn::Stream(narrow_eight(spread, y), dt, y);
  } else {
    hn::StoreU(narrow_eight(spread, y), dt, y);
  }
}
#endif

template <class T>
HWY_INLINE size_t expand_byte(uint32_t byte, const T* values, size_t n, T* y) {
  size_t used = 0;
  for (size_t lane = 0; lane < n; ++lane) {
    y[lane] = (byte >> lane) & 1 ? values[used++] : T{0};
  }
  return used;
}

template <bool kStream, class T>
void expand_run(const uint8_t* bits, const T* values, size_t room, size_t n, T* y) {
  size_t i = 0;
#if HWY_TARGET == HWY_SCALAR
  static_cast<void>(room);  // reads one at a time
#else
  const auto lane_bits = hn::Shl(hn::Set(DEight(), 1u), hn::Iota(DEight(), 0));
  for (; i + 64 <= n && room >= 64; i += 64) {
    uint64_t word;
    memcpy(&word, bits + i / 8, 8);
    room -= hwy::PopCount(word);
    if (kStream) look_up_page_ahead(y + i);
    for (size_t k = i; k < i + 64; k += 8, word >>= 8) {
      const uint32_t byte = static_cast<uint32_t>(word & 0xff);
      expand_eight<kStream>(byte, lane_bits, values, y + k);
      values += hwy::PopCount(uint64_t{byte});
    }
  }
#endif
  for (; i < n; i += 8) values += expand_byte(bits[i / 8], values, HWY_MIN(n - i, 8), y + i);
}

template <class T>
void expand_typed(const uint8_t* bits, const T* values, size_t room, size_t n, bool stream, T* y) {
  if (stream && can_stream(y)) {
    expand_run<true>(bits, values, room, n, y);
  } else {
    expand_run<false>(bits, values, room, n, y);
  }
}

}  // namespace

int64_t sparse_scatter_run(const void* positions, SparsePositions kind, int64_t origin,
                           int64_t first, int64_t limit, const void* values, int64_t element_bytes,
                           int64_t begin, int64_t end, bool stream, void* y) {
  if (element_bytes == 2) {
    return scatter_typed<uint16_t>(positions, kind, origin, first, limit, values, begin, end,
                                   stream, y);
  }
  return scatter_typed<uint32_t>(positions, kind, origin, first, limit, values, begin, end, stream,
                                 y);
}

void sparse_expand_run(const uint8_t* bits, const void* values, size_t room, int64_t element_bytes,
                       size_t n, bool stream, void* y) {
  if (element_bytes == 2) {
    expand_typed(bits, static_cast<const uint16_t*>(values), room, n, stream,
                 static_cast<uint16_t*>(y));
  } else {
    expand_typed(bits, static_cast<const uint32_t*>(values), room, n, stream,
                 static_cast<uint32_t*>(y));
  }
}

QVLMEM_SIMD_END
