// SPDX-License-Identifier: Apache-2.0
// What every back end of lossless shares: how scalars become words, how planes are chosen and
// entered. One text for host and device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/macros.h"
#include "kernels/lossless/lossless.h"

namespace qvlmem {

constexpr size_t kMaxPlanes = 8;
constexpr size_t kEntryBytes = 4;

// How a plane is coded is chosen by a sample: runs spread over the unit.
constexpr size_t kSampleRun = 64;
constexpr size_t kSampleRuns = 32;
constexpr size_t kSampleScalars = kSampleRun * kSampleRuns;

// A plane that shrinks by less than a 32nd is not worth its decoding.
QVLMEM_HD constexpr size_t worthwhile(size_t n) { return n - n / 32; }

// The entry of a plane.
QVLMEM_HD constexpr uint32_t make_entry(LosslessMode mode, size_t bytes) {
  return static_cast<uint32_t>(mode) << 24 | static_cast<uint32_t>(bytes);
}
QVLMEM_HD constexpr LosslessMode entry_mode(uint32_t entry) {
  return static_cast<LosslessMode>(entry >> 24);
}
QVLMEM_HD constexpr size_t entry_bytes(uint32_t entry) { return entry & 0xffffffu; }

// Maps of the scalars in a Word: one, or as many as it holds, each in its own bits.

// `bits` at the bottom of each scalar.
template <class Word>
QVLMEM_HD constexpr Word in_each_scalar(int scalar_bits, uint64_t bits) {
  Word word = 0;
  for (int at = 0; at < static_cast<int>(8 * sizeof(Word)); at += scalar_bits) {
    word = static_cast<Word>(word | static_cast<Word>(bits << at));
  }
  return word;
}

template <class Word>
struct ZigzagMap {
  QVLMEM_HD constexpr explicit ZigzagMap(int scalar_bits = 8 * sizeof(Word))
      : shift(scalar_bits - 1),
        lowest(in_each_scalar<Word>(scalar_bits, 1)),
        top(static_cast<Word>(lowest << shift)) {}

  QVLMEM_HD Word map(Word bits) const {
    const Word sign = static_cast<Word>(bits & top);
    const Word negative = static_cast<Word>((sign << 1) - (sign >> shift));
    return static_cast<Word>(static_cast<Word>((bits ^ sign) << 1) ^ negative);
  }
  QVLMEM_HD Word unmap(Word word) const {
    const Word sign = static_cast<Word>(word & lowest);
    const Word negative = static_cast<Word>((static_cast<Word>(sign << shift) << 1) - sign);
    return static_cast<Word>(static_cast<Word>((word ^ sign) >> 1) ^ negative);
  }

  int shift;
  Word lowest, top;
};

// Sign, exponent, mantissa become exponent, sign, mantissa.
template <class Word>
struct FloatMap {
  QVLMEM_HD constexpr explicit FloatMap(int mantissa_bits, int scalar_bits = 8 * sizeof(Word))
      : shift(scalar_bits - 1 - mantissa_bits),
        top(in_each_scalar<Word>(scalar_bits, uint64_t{1} << (scalar_bits - 1))),
        sign(in_each_scalar<Word>(scalar_bits, uint64_t{1} << mantissa_bits)),
        mantissa(in_each_scalar<Word>(scalar_bits, (uint64_t{1} << mantissa_bits) - 1)) {}

  QVLMEM_HD Word map(Word bits) const {
    const Word exponent = static_cast<Word>(bits << 1 & ~(sign | mantissa));
    return static_cast<Word>(exponent | (bits >> shift & sign) | (bits & mantissa));
  }
  QVLMEM_HD Word unmap(Word word) const {
    const Word exponent = static_cast<Word>(word >> 1 & ~(top | mantissa));
    return static_cast<Word>(exponent | (word << shift & top) | (word & mantissa));
  }

  int shift;
  Word top, sign, mantissa;
};

}  // namespace qvlmem
