// SPDX-License-Identifier: Apache-2.0
#include "kernels/sparse/sparse_encode_simd.h"

#include <hwy/cache_control.h>

#include "kernels/sparse/sparse_lanes.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t N = kLanes32;

// ---- Elements as 32-bit lanes ----

HWY_INLINE VU32 load_bits(const uint32_t* p) { return hn::LoadU(DU32(), p); }

HWY_INLINE VU32 load_bits(const uint16_t* p) {
  return hn::PromoteTo(DU32(), hn::LoadU(DU16Half(), p));
}

template <bool kStream>
HWY_INLINE void store_bits(VU32 v, uint32_t* p) {
  if (kStream) {
    hn::Stream(v, DU32(), p);
  } else {
    hn::StoreU(v, DU32(), p);
  }
}

template <bool kStream>
HWY_INLINE void store_bits(VU32 v, uint16_t* p) {
  const auto bits = hn::TruncateTo(DU16Half(), v);
  if (kStream) {
    hn::Stream(bits, DU16Half(), p);
  } else {
    hn::StoreU(bits, DU16Half(), p);
  }
}

// ---- Compressing one vector ----

#if HWY_TARGET != HWY_SCALAR
// Moves the lanes of a mask to the front.
class Compressor {
 public:
  HWY_INLINE explicit Compressor(hn::Mask<DU32> keep) {
#if HWY_TARGET == HWY_AVX2
    set_bits(static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(keep.raw))));
#else
    set_bits(keep.raw);
#endif
  }

  // Of the lanes that are not 0. AVX2 compares for equality alone: what it finds is inverted here.
  HWY_INLINE static Compressor of_nonzero(VU32 v) {
    Compressor some;
#if HWY_TARGET == HWY_AVX2
    const __m256i zeros = _mm256_cmpeq_epi32(v.raw, _mm256_setzero_si256());
    some.set_bits(static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(zeros))) ^ 0xffu);
#else
    some.set_bits(_mm512_test_epi32_mask(v.raw, v.raw));
#endif
    return some;
  }

  HWY_INLINE VU32 apply(VU32 v) const {
#if HWY_TARGET == HWY_AVX2
    return VU32{_mm256_permutevar8x32_epi32(v.raw, _mm256_cvtepu8_epi32(order_))};
#else
    return VU32{_mm512_maskz_compress_epi32(keep_, v.raw)};
#endif
  }

  HWY_INLINE size_t count() const { return hwy::PopCount(static_cast<uint64_t>(bits_)); }

  // The numbers of the mask's lanes.
  HWY_INLINE hn::Vec<DU16Half> lanes() const {
#if HWY_TARGET == HWY_AVX2
    return hn::Vec<DU16Half>{_mm_cvtepu8_epi16(order_)};
#else
    return hn::TruncateTo(DU16Half(), apply(hn::Iota(DU32(), 0)));
#endif
  }

  HWY_INLINE void store_bits(uint8_t* bits) const { memcpy(bits, &bits_, N / 8); }

 private:
  HWY_INLINE Compressor() {}

  HWY_INLINE void set_bits(uint32_t bits) {
    bits_ = bits;
#if HWY_TARGET == HWY_AVX2
    order_ = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(&kLaneTables.gather[bits]));
#else
    keep_ = static_cast<__mmask16>(bits);
#endif
  }

  uint32_t bits_;
#if HWY_TARGET == HWY_AVX2
  __m128i order_;
#else
  __mmask16 keep_;
#endif
};

#endif

// ---- Counting ----

template <class T>
size_t count_run(const T* x, size_t n, uint32_t key_mask, uint32_t low, uint32_t high) {
  size_t count = 0, i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<T> d;
  constexpr size_t kLanes = hn::MaxLanes(hn::ScalableTag<T>());
  const auto mask = hn::Set(d, static_cast<T>(key_mask));
  const auto start = hn::Set(d, static_cast<T>(low));
  const auto width = hn::Set(d, static_cast<T>(high - low));
  const auto inside = [&](const T* p) HWY_ATTR {
    const auto offset = hn::Sub(hn::And(hn::LoadU(d, p), mask), start);
    return hn::VecFromMask(d, hn::Eq(hn::Min(offset, width), offset));
  };
  // A lane holds 2^16 - 1 at most: n is a unit's.
  auto count0 = hn::Zero(d), count1 = count0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    count0 = hn::Sub(count0, inside(x + i));
    count1 = hn::Sub(count1, inside(x + i + kLanes));
  }
  HWY_ALIGN T lanes[kLanes];
  hn::Store(hn::Add(count0, count1), d, lanes);
  for (size_t k = 0; k < kLanes; ++k) count += lanes[k];
#endif
  for (; i < n; ++i) count += (x[i] & key_mask) - low <= high - low;
  return count;
}

template <class T>
void histogram_run(const T* x, size_t n, uint32_t key_mask, SparseKeyRange range,
                   SparseRunHistogram* histogram) {
  constexpr size_t kPiece = 1024;
  HWY_ALIGN uint32_t inside[kPiece + N];
  const uint32_t width = static_cast<uint32_t>(kSparseBins) << range.shift;
  size_t below = 0;
  for (size_t begin = 0; begin < n; begin += kPiece) {
    const size_t end = HWY_MIN(begin + kPiece, n);
    size_t i = begin, count = 0;
#if HWY_TARGET != HWY_SCALAR
    const DU32 du;
    const VU32 mask = hn::Set(du, key_mask), low = hn::Set(du, range.low);
    const VU32 vwidth = hn::Set(du, width);
    for (; i + N <= end; i += N) {
      const VU32 key = hn::And(load_bits(x + i), mask);
      const VU32 offset = hn::Sub(key, low);
      const Compressor in_range(hn::Gt(vwidth, offset));
      below += hn::CountTrue(du, hn::Gt(low, key));
      hn::StoreU(in_range.apply(offset), du, inside + count);
      count += in_range.count();
    }
#endif
    for (; i < end; ++i) {
      const uint32_t key = x[i] & key_mask;
      below += key < range.low;
      inside[count] = key - range.low;
      count += key - range.low < width;
    }
    for (size_t k = 0; k < count; ++k) ++histogram->bins[k & 1][inside[k] >> range.shift];
  }
  histogram->below += static_cast<uint32_t>(below);
}

// ---- Gathering ----

// kNonzero: key_mask is every bit and cut 0.
template <bool kBits, bool kNonzero, class T>
size_t gather_run(const T* x, size_t n, uint32_t key_mask, uint32_t cut, size_t first, T* values,
                  uint16_t* positions, uint8_t* bits, uint32_t* largest_key) {
  size_t i = 0, count = 0;
  uint32_t largest = *largest_key;
#if HWY_TARGET != HWY_SCALAR
  const DU32 du;
  const VU32 mask = hn::Set(du, key_mask), vcut = hn::Set(du, cut);
  VU32 top = hn::Zero(du);
  const DU16Half d16;
  auto position = hn::Set(d16, static_cast<uint16_t>(first));
  const auto step = hn::Set(d16, static_cast<uint16_t>(N));
  // Stores whose place depends on the data keep the hardware from looking far ahead by itself.
  // Asking for lines waits for their page's translation, which is asked for before: x is a page at
  // most.
  constexpr size_t kAhead = 3 * kPageBytes;
  look_up_page_ahead(x);
  // Short vectors: stores of one kind follow one another, as they mostly go to one cache line. One
  // to another line than the store before takes longer.
  constexpr size_t kVectors = HWY_TARGET == HWY_AVX2 ? 4 : 64 / sizeof(T) / N, kStep = kVectors * N;
  for (; i + kStep <= n; i += kStep) {
    const uint8_t* const ahead = reinterpret_cast<const uint8_t*>(x + i) + kAhead;
    for (size_t b = 0; b < kStep * sizeof(T); b += 64) hwy::Prefetch(ahead + b);
    VU32 kept[kVectors];
    hn::Vec<DU16Half> where[kVectors];
    size_t place[kVectors];
    for (size_t k = 0; k < kVectors; ++k) {
      const VU32 v = load_bits(x + i + k * N);
      const VU32 key = hn::And(v, mask);
      const Compressor keep = kNonzero ? Compressor::of_nonzero(v) : Compressor(hn::Gt(key, vcut));
      if (!kNonzero) top = hn::Max(top, key);
      kept[k] = keep.apply(v);
      if (kBits) {
        keep.store_bits(bits + (i + k * N) / 8);
      } else {
        where[k] = hn::Add(keep.lanes(), position);
        position = hn::Add(position, step);
      }
      place[k] = count;
      count += keep.count();
    }
    // In registers, then a whole store: compressing into memory is microcoded on AMD's Zen 4.
    for (size_t k = 0; k < kVectors; ++k) store_bits<false>(kept[k], values + place[k]);
    if (kBits) continue;
    for (size_t k = 0; k < kVectors; ++k) hn::StoreU(where[k], d16, positions + place[k]);
  }
  HWY_ALIGN uint32_t lanes[N];
  hn::Store(top, du, lanes);
  for (size_t k = 0; k < N; ++k) largest = HWY_MAX(largest, lanes[k]);
#endif
  for (uint32_t byte = 0; i < n; ++i) {
    const uint32_t key = x[i] & key_mask;
    const bool keep = key > cut;
    largest = HWY_MAX(largest, key);
    values[count] = x[i];
    if (kBits) {
      byte = (i % 8 == 0 ? 0 : byte) | static_cast<uint32_t>(keep) << (i % 8);
      bits[i / 8] = static_cast<uint8_t>(byte);
    } else {
      positions[count] = static_cast<uint16_t>(first + i);
    }
    count += keep;
  }
  *largest_key = largest;
  return count;
}

template <class T>
size_t gather_typed(const T* x, size_t n, uint32_t key_mask, uint32_t cut, size_t first, T* values,
                    uint16_t* positions, uint8_t* bits, uint32_t* largest_key) {
  if (bits != nullptr) {
    return gather_run<true, false>(x, n, key_mask, cut, first, values, positions, bits,
                                   largest_key);
  }
  if (HWY_TARGET != HWY_SCALAR && cut == 0 && key_mask == static_cast<T>(-1)) {
    return gather_run<false, true>(x, n, key_mask, cut, first, values, positions, bits,
                                   largest_key);
  }
  return gather_run<false, false>(x, n, key_mask, cut, first, values, positions, bits, largest_key);
}

}  // namespace

size_t sparse_count_run(const void* x, int64_t element_bytes, size_t n, uint32_t key_mask,
                        uint32_t low, uint32_t high) {
  if (element_bytes == 2) {
    return count_run(static_cast<const uint16_t*>(x), n, key_mask, low, high);
  }
  return count_run(static_cast<const uint32_t*>(x), n, key_mask, low, high);
}

void sparse_histogram_run(const void* x, int64_t element_bytes, size_t n, uint32_t key_mask,
                          SparseKeyRange range, SparseRunHistogram* histogram) {
  if (element_bytes == 2) {
    histogram_run(static_cast<const uint16_t*>(x), n, key_mask, range, histogram);
  } else {
    histogram_run(static_cast<const uint32_t*>(x), n, key_mask, range, histogram);
  }
}

size_t sparse_gather_run(const void* x, int64_t element_bytes, size_t n, uint32_t key_mask,
                         uint32_t cut, size_t first, void* values, uint16_t* positions,
                         uint8_t* bits, uint32_t* largest_key) {
  if (element_bytes == 2) {
    return gather_typed(static_cast<const uint16_t*>(x), n, key_mask, cut, first,
                        static_cast<uint16_t*>(values), positions, bits, largest_key);
  }
  return gather_typed(static_cast<const uint32_t*>(x), n, key_mask, cut, first,
                      static_cast<uint32_t*>(values), positions, bits, largest_key);
}

void sparse_place_run(const uint16_t* positions, size_t n, int32_t base, bool stream,
                      int32_t* indices) {
  size_t i = 0;
  const auto one = [&]() HWY_ATTR {
    indices[i] = base + positions[i];
    ++i;
  };
  const DI32 di;
  const VI32 vbase = hn::Set(di, base);
  const auto vector = [&]() HWY_ATTR {
    return hn::Add(hn::BitCast(di, load_bits(positions + i)), vbase);
  };
  if (stream) {
    // From a whole cache line on, so that no line is written in two ways.
    look_up_page_ahead(indices);
    while (i < n && (reinterpret_cast<uintptr_t>(indices + i) & 63) != 0) one();
    constexpr size_t kLine = 64 / sizeof(int32_t);
    for (; i + kLine <= n;) {
      for (size_t k = 0; k < kLine; k += N, i += N) hn::Stream(vector(), di, indices + i);
    }
  } else {
    for (; i + N <= n; i += N) hn::StoreU(vector(), di, indices + i);
  }
  while (i < n) one();
}

void sparse_stream_copy(const void* from, size_t bytes, void* to) {
#if HWY_TARGET == HWY_SCALAR
  memcpy(to, from, bytes);
#else
  const hn::ScalableTag<uint8_t> d8;
  constexpr size_t kStep = hn::MaxLanes(hn::ScalableTag<uint8_t>());
  const uint8_t* source = static_cast<const uint8_t*>(from);
  uint8_t* target = static_cast<uint8_t*>(to);
  const size_t to_line = -reinterpret_cast<uintptr_t>(target) & 63;
  const size_t head = HWY_MIN(to_line, bytes);
  look_up_page_ahead(target);
  memcpy(target, source, head);
  const size_t end = head + ((bytes - head) & ~size_t{63});
  for (size_t i = head; i < end; i += kStep) {
    hn::Stream(hn::LoadU(d8, source + i), d8, target + i);
  }
  memcpy(target + end, source + end, bytes - end);
#endif
}

QVLMEM_SIMD_END
