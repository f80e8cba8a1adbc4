// SPDX-License-Identifier: Apache-2.0
#include "kernels/coding/huffman_streams.h"

QVLMEM_SIMD_BEGIN
namespace {

#if HWY_TARGET != HWY_SCALAR
// Below which adding up every pair that there may be takes as long as it saves (measured on Zen 5).
constexpr size_t kCountPairsFrom = size_t{1} << 14;

using D16 = hn::ScalableTag<uint16_t>;

HWY_INLINE uint32_t sum_of_lanes(hn::Vec<D16> v) {
  const hn::RepartitionToWide<D16> d32;
  const auto twos = hn::BitCast(d32, v);
  const auto even = hn::And(twos, hn::Set(d32, 0xffffu)), odd = hn::ShiftRight<16>(twos);
  return hn::GetLane(hn::SumOfLanes(d32, hn::Add(even, odd)));
}

// The first and the last of the values that n bytes have. REQUIRES: n is two vectors' at least.
void byte_range(const uint8_t* bytes, size_t n, size_t* first, size_t* last) {
  const hn::ScalableTag<uint8_t> d;
  constexpr size_t kStep = hn::MaxLanes(hn::ScalableTag<uint8_t>());
  // Two vectors at a time: of one, g++ 12 stores the ranges in every round.
  hn::Vec<decltype(d)> low[2], high[2];
  for (size_t k = 0; k < 2; ++k) {
    low[k] = hn::LoadU(d, bytes + n - (k + 1) * kStep);
    high[k] = hn::LoadU(d, bytes + n - (k + 1) * kStep);
  }
  for (size_t i = 0; i + 2 * kStep < n; i += 2 * kStep) {
    for (size_t k = 0; k < 2; ++k) {
      const auto v = hn::LoadU(d, bytes + i + k * kStep);
      low[k] = hn::Min(low[k], v);
      high[k] = hn::Max(high[k], v);
    }
  }
  HWY_ALIGN uint8_t lows[kStep], highs[kStep];
  hn::Store(hn::Min(low[0], low[1]), d, lows);
  hn::Store(hn::Max(high[0], high[1]), d, highs);
  *first = lows[0];
  *last = highs[0];
  for (size_t i = 1; i < kStep; ++i) {
    *first = lows[i] < *first ? lows[i] : *first;
    *last = highs[i] > *last ? highs[i] : *last;
  }
}

// Counts by pairs what all streams have, and says how many bytes of each that were: all but an odd
// one, or none where they are not all within a range of kPairRange. Of pairs there are half as
// many, and the increments in memory are what counting takes. REQUIRES: n <= kHuffmanMaxCount, so
// that 16 bits hold a count.
size_t count_pairs(const uint8_t* bytes, size_t n, uint32_t counts[kHuffmanStreams][256]) {
  constexpr size_t kStep = hn::MaxLanes(D16()), kVectors = kPairRange / kStep;
  const D16 d;
  size_t first, last;
  byte_range(bytes, n, &first, &last);
  if (last - first >= kPairRange) return 0;
  // Of [second][first]. Tables begin at different places within pages: a processor takes a load
  // from the place within its page that a store under way has in another for one that must wait.
  HWY_ALIGN uint16_t table[kHuffmanStreams][(kPairRange + 2) * kPairRange];
  for (int s = 0; s < kHuffmanStreams; ++s) {
    for (size_t v = first; v <= last; ++v) {
      for (size_t k = 0; k < kPairRange; k += kStep) {
        hn::Store(hn::Zero(d), d, table[s] + v % kPairRange * kPairRange + k);
      }
    }
  }
  const size_t stride = stream_stride(n), paired = stream_length(n, kHuffmanStreams - 1) / 2 * 2;
  for (size_t i = 0; i < paired; i += 2) {
    for (int s = 0; s < kHuffmanStreams; ++s) {
      ++table[s][pair_index(bytes + s * stride + i)];
    }
  }
  for (int s = 0; s < kHuffmanStreams; ++s) {
    hn::Vec<D16> firsts[kVectors];
    for (size_t k = 0; k < kVectors; ++k) firsts[k] = hn::Zero(d);
    for (size_t v = first; v <= last; ++v) {
      auto seconds = hn::Zero(d);
      for (size_t k = 0; k < kVectors; ++k) {
        const auto some = hn::Load(d, table[s] + v % kPairRange * kPairRange + k * kStep);
        firsts[k] = hn::Add(firsts[k], some);
        seconds = hn::Add(seconds, some);
      }
      counts[s][v] += sum_of_lanes(seconds);
    }
    HWY_ALIGN uint16_t sums[kPairRange];
    for (size_t k = 0; k < kVectors; ++k) hn::Store(firsts[k], d, sums + k * kStep);
    for (size_t v = first; v <= last; ++v) counts[s][v] += sums[v % kPairRange];
  }
  return paired;
}
#endif

}  // namespace

void huffman_count(const uint8_t* bytes, size_t n, uint32_t counts[kHuffmanStreams][256]) {
  // All streams at once: equal bytes in a row would make each increment wait for the last.
  const size_t stride = stream_stride(n);
  const size_t common = stream_length(n, kHuffmanStreams - 1);
  size_t counted = 0;
#if HWY_TARGET != HWY_SCALAR
  if (n >= kCountPairsFrom) counted = count_pairs(bytes, n, counts);
#endif
  for (size_t i = counted; i < common; ++i) {
    for (int s = 0; s < kHuffmanStreams; ++s) ++counts[s][bytes[s * stride + i]];
  }
  for (int s = 0; s < kHuffmanStreams; ++s) {
    const size_t length = stream_length(n, s);
    for (size_t i = common; i < length; ++i) ++counts[s][bytes[s * stride + i]];
  }
}

QVLMEM_SIMD_END
