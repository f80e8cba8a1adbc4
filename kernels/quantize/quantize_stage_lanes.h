// SPDX-License-Identifier: Apache-2.0
// A stage in L1, from which whole lines go to consecutive bytes of memory: so that what comes in
// pieces of any length can be written past the caches. Mixing streaming and other stores within
// lines costs ten times as much.
#pragma once

#include <string.h>

#include "kernels/base/stream.h"
#include "kernels/quantize/quantize_lanes.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t kLine = 64;  // bytes of a cache line

// Steps of 4 bits, two a byte: 128 of them become a line. Both aligned to one.
template <bool kStream>
HWY_INLINE void store_nibbles(const int8_t* steps, uint8_t* line) {
#if HWY_TARGET == HWY_AVX2
  const __m256i mask = _mm256_set1_epi8(15), places = _mm256_set1_epi16(0x1001);
  const __m256i* from = reinterpret_cast<const __m256i*>(steps);
  __m256i* to = reinterpret_cast<__m256i*>(line);
  for (size_t half = 0; half < 2; ++half) {
    const __m256i low = _mm256_and_si256(_mm256_load_si256(from + 2 * half), mask);
    const __m256i high = _mm256_and_si256(_mm256_load_si256(from + 2 * half + 1), mask);
    const __m256i bytes =
        _mm256_packus_epi16(_mm256_maddubs_epi16(low, places), _mm256_maddubs_epi16(high, places));
    const __m256i ordered = _mm256_permute4x64_epi64(bytes, 0xd8);
    if (kStream) {
      _mm256_stream_si256(to + half, ordered);
    } else {
      _mm256_store_si256(to + half, ordered);
    }
  }
#elif HWY_TARGET == HWY_AVX3
  const __m512i mask = _mm512_set1_epi8(15), places = _mm512_set1_epi16(0x1001);
  const __m512i low = _mm512_and_si512(_mm512_load_si512(steps), mask);
  const __m512i high = _mm512_and_si512(_mm512_load_si512(steps + 64), mask);
  const __m512i bytes =
      _mm512_packus_epi16(_mm512_maddubs_epi16(low, places), _mm512_maddubs_epi16(high, places));
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  const __m512i ordered = _mm512_permutexvar_epi64(order, bytes);
  if (kStream) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(line), ordered);
  } else {
    _mm512_store_si512(line, ordered);
  }
#else
  for (size_t i = 0; i < kLine; ++i) {
    line[i] = static_cast<uint8_t>((steps[2 * i] & 15) | (steps[2 * i + 1] & 15) << 4);
  }
#endif
}

// 64 steps of 8 bits.
template <bool kStream>
HWY_INLINE void store_bytes(const int8_t* steps, uint8_t* line) {
#if HWY_TARGET != HWY_SCALAR
  const hn::Repartition<uint8_t, DI32> d8;
  constexpr size_t kBytes = 4 * N;
  for (size_t i = 0; i < kLine; i += kBytes) {
    const auto bytes = hn::Load(d8, reinterpret_cast<const uint8_t*>(steps) + i);
    if (kStream) {
      hn::Stream(bytes, d8, line + i);
    } else {
      hn::Store(bytes, d8, line + i);
    }
  }
#else
  memcpy(line, steps, kLine);
#endif
}

// Bytes that may be staged at a time, and from which on a stage is emptied: soon, so that reading
// does not pause for the writing.
constexpr size_t kStageRun = 1024, kStageFull = 512;

struct Stage {
  // At the end a row's last nibble, and lines that are looked at and not used.
  alignas(kLine) int8_t bytes[kStageFull + kStageRun + 4 * kLine];

  // Before the first use, for nothing to be looked at that was never written.
  HWY_INLINE void clear() { memset(bytes, 0, sizeof(bytes)); }
};

// Staged bytes (kNibbles: steps, two a byte) that make a line.
template <bool kNibbles>
constexpr size_t kLineSteps = kNibbles ? 2 * kLine : kLine;

// Bytes [lead, end) of the stage's first line go to those of `line`.
template <bool kNibbles>
void store_part(const int8_t* stage, size_t lead, size_t end, uint8_t* line) {
  alignas(kLine) uint8_t whole[kLine];
  kNibbles ? store_nibbles<false>(stage, whole) : store_bytes<false>(stage, whole);
  memcpy(line + lead, whole + lead, end - lead);
}

// The lines that are full leave the stage, the first one from its byte `lead` on, and what remains
// moves to its front. Returns how many did.
template <bool kNibbles>
size_t flush_lines(int8_t* stage, size_t filled, size_t lead, bool stream, uint8_t* line) {
  constexpr size_t kSteps = kLineSteps<kNibbles>;
  const size_t count = filled / kSteps;
  if (count == 0) return 0;
  if (stream) look_up_page_ahead(line);
  size_t i = 0;
  if (lead != 0) store_part<kNibbles>(stage, lead, kLine, line), i = 1;
  for (; i < count; ++i) {
    const int8_t* from = stage + i * kSteps;
    uint8_t* to = line + i * kLine;
    if (kNibbles) {
      stream ? store_nibbles<true>(from, to) : store_nibbles<false>(from, to);
    } else {
      stream ? store_bytes<true>(from, to) : store_bytes<false>(from, to);
    }
  }
  if (filled % kSteps != 0) memcpy(stage, stage + count * kSteps, kSteps);
  return count;
}

// Where a stage's lines go: `line` is the next one's address, and what lies before byte `lead` of
// it is not written. No stage in here, and nothing that a function is given the address of, or all
// of this would have to be in memory whenever a byte is staged.
template <bool kNibbles>
class StagedLines {
 public:
  StagedLines(uint8_t* out, bool stream, int8_t* stage)
      : stage_(stage), stream_(stream), lead_(reinterpret_cast<uintptr_t>(out) % kLine) {
    line_ = out - lead_;
    filled_ = kNibbles ? 2 * lead_ : lead_;
  }

  // Where the next byte is staged, with room for kStageRun of them and one more.
  HWY_INLINE int8_t* next() const { return stage_ + filled_; }

  HWY_INLINE void staged(size_t n) {
    filled_ += n;
    if (filled_ >= kStageFull) flush();
  }

  // Writes what is left.
  HWY_INLINE void finish() {
    flush();
    const size_t end = kNibbles ? filled_ / 2 : filled_;
    if (end > lead_) store_part<kNibbles>(stage_, lead_, end, line_);
  }

 private:
  HWY_INLINE void flush() {
    const size_t count = flush_lines<kNibbles>(stage_, filled_, lead_, stream_, line_);
    line_ += count * kLine;
    filled_ -= count * kLineSteps<kNibbles>;
    if (count != 0) lead_ = 0;
  }

  int8_t* const stage_;
  const bool stream_;
  size_t lead_, filled_;
  uint8_t* line_;
};

}  // namespace
QVLMEM_SIMD_END
