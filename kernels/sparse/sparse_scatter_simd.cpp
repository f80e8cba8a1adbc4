// SPDX-License-Identifier: Apache-2.0
#include "kernels/sparse/sparse_scatter_simd.h"

#include "kernels/base/simd.h"

QVLMEM_SIMD_BEGIN
namespace {

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
    for (; i + kLanes <= n; i += kLanes) hn::Stream(hn::Load(d, piece + i), d, y + i);
  }
  memcpy(y + i, piece + i, static_cast<size_t>(n - i) * sizeof(T));
}

// The first entry of [first, limit) at or beyond `stop`; -1 where those before it are not strictly
// increasing from `low` on.
template <class Index>
HWY_INLINE int64_t scan(Index index, int64_t first, int64_t limit, int64_t low, int64_t stop) {
  int64_t last = first, previous = low - 1;
  bool ordered = true;
  for (; last < limit && index[last] < stop; ++last) {
    ordered &= index[last] > previous;
    previous = index[last];
  }
  return ordered ? last : -1;
}

#if HWY_TARGET != HWY_SCALAR
HWY_INLINE int64_t scan(const int32_t* index, int64_t first, int64_t limit, int64_t low,
                        int64_t stop) {
  if (first == limit || index[first] >= stop) return first;
  bool ordered = index[first] >= low;
  int64_t last = first + 1;
  const DI32 di;
  // Beyond INT32_MAX every position is before `stop`: the scalar loop's case.
  const VI32 vstop = hn::Set(di, static_cast<int32_t>(HWY_MIN(stop, int64_t{INT32_MAX})));
  constexpr int64_t kLanes = static_cast<int64_t>(kLanes32);
  for (int64_t inside = kLanes; inside == kLanes && last + kLanes <= limit; last += inside) {
    const VI32 position = hn::LoadU(di, index + last);
    const auto in_piece = hn::Lt(position, vstop);
    const auto above = hn::Gt(position, hn::LoadU(di, index + last - 1));
    ordered &= hn::AllFalse(di, hn::AndNot(above, in_piece));
    inside = static_cast<int64_t>(hn::CountTrue(di, in_piece));
  }
  for (; last < limit && index[last] < stop; ++last) ordered &= index[last] > index[last - 1];
  return ordered ? last : -1;
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
  while (begin < end) {
    const int64_t stop = HWY_MIN(begin + kPiece, end);
    T* const out = stream ? piece : y + begin;
    zero(out, stop - begin);
    // Checked first and as a whole, so that the loop of stores stays free of branches.
    const int64_t last = scan(index, first, limit, begin, stop);
    if (last < 0) return -1;
    T* const shifted = out - begin;
#pragma GCC unroll 4
    for (int64_t k = first; k < last; ++k) shifted[index[k]] = values[k];
    if (stream) send(piece, stop - begin, y + begin);
    first = last;
    begin = stop;
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

QVLMEM_SIMD_END
