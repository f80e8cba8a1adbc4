// SPDX-License-Identifier: Apache-2.0
// What encoding and decoding a unit share.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/base/checked.h"
#include "kernels/base/isa.h"
#include "kernels/bounded/bounded.h"
#include "kernels/bounded/bounded_simd.h"
#include "kernels/coding/huffman.h"
#include "kernels/coding/int_pack.h"

namespace qvlmem {

// Values that are on their way between x and bytes at a time: 8 KiB, in L1. Whole blocks.
constexpr int64_t kPiece = 2048;
constexpr int64_t kPieceBlocks = kPiece / static_cast<int64_t>(kIntPackBlock);
static_assert(kPiece % static_cast<int64_t>(kIntPackBlock) == 0, "pieces must be whole blocks");

// Bytes of a coded unit before its planes: mode, low, escapes.
constexpr int64_t kCodedHeaderBytes = 6;
constexpr uint32_t kMaxLowBits = 24;

inline const void* element(const void* base, DType dtype, int64_t index) {
  return static_cast<const char*>(base) + index * dtype_bytes(dtype);
}

inline void* element(void* base, DType dtype, int64_t index) {
  return static_cast<char*>(base) + index * dtype_bytes(dtype);
}

inline int64_t blocks_of(int64_t values) { return ceil_div(values, kIntPackBlock); }

// Calls run(row, begin, end) for the stretches of flat positions [begin, end) that share a row.
template <class Run>
void for_each_row_run(const BoundedPlan& plan, int64_t begin, int64_t end, Run run) {
  for (int64_t row = begin / plan.cols; begin < end; ++row) {
    const int64_t stop = std::min(end, (row + 1) * plan.cols);
    run(row, begin, stop);
    begin = stop;
  }
}

// Turns pieces of x into integers, filled up to whole blocks.
class Quantizer {
 public:
  Quantizer(const BoundedPlan& plan, const void* x, DType dtype, const float* step)
      : plan_(plan), x_(x), dtype_(dtype), step_(step) {}

  // Values [begin, end), at most kPiece, into q. False where one has no integer.
  bool piece(int64_t begin, int64_t end, int32_t* q) const {
    bool fine = true;
    for_each_row_run(plan_, begin, end, [&](int64_t row, int64_t from, int64_t to) {
      fine &= run_(element(x_, dtype_, from), dtype_, static_cast<size_t>(to - from), step_[row],
                   q + (from - begin));
    });
    const int64_t n = end - begin;
    std::fill(q + n, q + blocks_of(n) * int64_t{kIntPackBlock}, q[n - 1]);
    return fine;
  }

 private:
  const BoundedPlan& plan_;
  const void* x_;
  DType dtype_;
  const float* step_;
  decltype(&portable::bounded_quantize_run) run_ = QVLMEM_SIMD_PICK(bounded_quantize_run);
};

// Packs a unit into exactly `size` bytes; kInvalidArgument where it takes another number or a value
// has no integer. Never writes outside.
Status pack_unit(const Quantizer& quantizer, const BoundedUnit& unit, uint8_t* out, int64_t size);

// Calls found(i), in order, for each of the n bytes that is 0; most are not.
template <class Found>
void for_each_zero(const uint8_t* bytes, size_t n, Found found) {
  constexpr uint64_t kLow = 0x0101010101010101u;
  for (size_t i = 0; i < n;) {
    uint64_t word;
    if (n - i >= 8) {
      memcpy(&word, bytes + i, 8);
      if (((word - kLow) & ~word & kLow << 7) == 0) {
        i += 8;
        continue;
      }
    }
    for (const size_t stop = std::min(n, i + 8); i < stop; ++i) {
      if (bytes[i] == 0) found(i);
    }
  }
}

}  // namespace qvlmem
