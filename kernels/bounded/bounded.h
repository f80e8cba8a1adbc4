// SPDX-License-Identifier: Apache-2.0
// Quantization under a bound on the error: one step for the whole tensor, or one a row, as large as
// the bound allows, and the integers packed. Equal steps everywhere are the best that a scalar
// quantizer can do for a given squared error (reverse water-filling), at 0.25 bit from the
// rate-distortion limit where entropy-coded at high rate (Gish and Pierce 1968); packed widths pay
// about 1 bit more. So there are two forms: packed at memory speed, and coded by entropy.
//
// Layout. x is a matrix [rows, cols], with one float32 step a row; for one step for a whole tensor
// the caller passes it as one row. q = round-half-even(x / step) as bounded_math.h
// computes it, y = q * step in x's dtype. The
// rows' values, one after another, are cut into units, encoded alone and independent of one
// another:
//   mode     1 byte, a BoundedMode (any other value: kUnsupported)
// Where kPacked:
//   headers  1 byte for each block of 32 values of the unit, in order, across its rows
//   payload  the blocks' payloads (kernels/coding/int_pack.h)
// Where kCoded, in the coded form alone:
//   low      1 byte: the lowest bits of each value that are stored as they are, 0 to 24
//   escapes  4 bytes, little-endian: values that have no symbol
//   planes   4 * low bytes a block: its lowest bits, as int_pack.h lays out blocks of that width
//   headers  1 byte for each block of 32 escapes
//   payload  of the escapes, in order
//   symbols  a byte for each value, by kernels/coding/huffman.h: 0 for an escape, else
//            1 + zigzag(q >> low)
// A short last block is filled up with its last value. Blocks run on across rows: steps follow the
// rows' size, so that neighbours have integers of like size, and short rows would else pay for what
// fills them up.
//
// The lowest bits of values that spread over many steps are as good as random: coding them gains
// nothing, and without them there are few symbols, with short codes and small tables. `low` is such
// that a typical value is 2 to 4 times 2^low; for a Gaussian that costs 0.005 bit a value.
//
// A unit is some whole rows where a row fits in cache (`fused`), else a piece of a row. In the
// coded form it is four times as large, for its table to pay.
//
// Packing takes two looks at x. The first finds steps and exact sizes: bounded_solve_cpu where
// fused; else bounded_moments_cpu, then bounded_measure_cpu until the search of bounded_math.h is
// done. The second, bounded_encode_cpu, writes each unit where it will stay: no buffer of the
// worst-case size, nothing to move afterwards. Coding takes the steps of that first look, and one
// more that tells sizes as it goes.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/status.h"
#include "kernels/bounded/bounded_math.h"

namespace qvlmem {

// How a unit is encoded. The numeric values are in the format.
enum class BoundedMode : uint8_t { kPacked = 0, kCoded = 1 };

enum class BoundedForm : uint8_t { kPacked = 0, kCoded = 1 };

struct BoundedPlan {
  BoundedForm form = BoundedForm::kPacked;
  int64_t rows = 0;
  int64_t cols = 0;
  bool fused = false;
  int64_t rows_per_unit = 1;  // 1 where not fused
  int64_t unit_cols = 0;      // columns of a full unit: cols where fused
  int64_t units_per_row = 0;  // 1 where fused
  int64_t unit_count = 0;
};

// kInvalidArgument where a size is negative, kOverflow where one does not fit.
Status make_bounded_plan(int64_t rows, int64_t cols, BoundedForm form, BoundedPlan* plan) noexcept;

struct BoundedUnit {
  int64_t row_begin, row_end;  // one row where not fused
  int64_t begin, end;          // flat positions of its values
};

inline BoundedUnit bounded_unit(const BoundedPlan& plan, int64_t unit) {
  if (plan.fused) {
    const int64_t row = unit * plan.rows_per_unit;
    const int64_t end = plan.rows - row < plan.rows_per_unit ? plan.rows : row + plan.rows_per_unit;
    return BoundedUnit{row, end, row * plan.cols, end * plan.cols};
  }
  const int64_t row = unit / plan.units_per_row;
  const int64_t col = unit % plan.units_per_row * plan.unit_cols;
  const int64_t end = plan.cols - col < plan.unit_cols ? plan.cols : col + plan.unit_cols;
  return BoundedUnit{row, row + 1, row * plan.cols + col, row * plan.cols + end};
}

// The unit that has the value at a flat position. REQUIRES: 0 <= position < rows * cols.
inline int64_t bounded_unit_of(const BoundedPlan& plan, int64_t position) {
  const int64_t row = position / plan.cols;
  if (plan.fused) return row / plan.rows_per_unit;
  return row * plan.units_per_row + position % plan.cols / plan.unit_cols;
}

// What a unit takes at most, in either mode.
int64_t bounded_unit_bound(const BoundedPlan& plan, int64_t unit) noexcept;

// Where fused: the steps of the rows of units [unit_begin, unit_end), and the bytes of each unit
// (bytes[unit_count]). kNonFinite where a value is NaN or infinite; kBoundMissed where no step
// holds (max_error below what float32 can do): outputs are then unspecified.
Status bounded_solve_cpu(const BoundedPlan& plan, const void* x, DType dtype,
                         const BoundedTarget& target, int64_t unit_begin, int64_t unit_end,
                         float* step, int32_t* bytes) noexcept;

// Where not fused: moments[u - unit_begin] for each unit. The caller adds up those of a row in the
// order of units.
void bounded_moments_cpu(const BoundedPlan& plan, const void* x, DType dtype, int64_t unit_begin,
                         int64_t unit_end, BoundedMoments* moments) noexcept;

// Where not fused: errors[u - unit_begin] with the given steps, to be added up likewise, and
// bytes[u] of each unit; bytes may be nullptr. REQUIRES: finite x, max|x| <= 2^30 step.
void bounded_measure_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                         int64_t unit_begin, int64_t unit_end, BoundedError* errors,
                         int32_t* bytes) noexcept;

// offset[u] = bytes of the units before u, for u = 0..unit_count. kCorrupt where the bytes of the
// units are no sizes of units or do not add up to total_bytes.
Status bounded_offsets(const BoundedPlan& plan, const int32_t* bytes, int64_t total_bytes,
                       int64_t* offset) noexcept;

// Packs units: unit u at packed + offset[u], exactly up to offset[u + 1]. kInvalidArgument where
// a unit has another size, or a value is not finite or beyond 2^30 steps: x or step is not what was
// measured. Never writes outside the unit's place.
Status bounded_encode_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                          const int64_t* offset, int64_t unit_begin, int64_t unit_end,
                          uint8_t* packed) noexcept;

// What the values of a unit would take in a coded one, its table included. That of the packed form
// is in `bytes`. kInvalidArgument as below.
Status bounded_estimate_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                            int64_t unit, int64_t* coded_bytes) noexcept;

// Encodes one unit of the coded form into `out`, where there is room for bounded_unit_bound, by the
// mode that takes fewer bytes; *bytes is how many. kInvalidArgument where a value is not finite or
// beyond 2^30 steps.
Status bounded_code_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                        int64_t unit, uint8_t* out, int64_t* bytes) noexcept;

// Checks units of bytes that may be hostile: kUnsupported for an unknown mode, kCorrupt or
// kTruncated where a unit's bytes, widths or steps contradict one another. Reads no payload and no
// symbols.
Status bounded_check_cpu(const BoundedPlan& plan, const uint8_t* packed, const int64_t* offset,
                         const float* step, int64_t unit_begin, int64_t unit_end) noexcept;

// Decodes units into y (rows x cols, dense), saturating at the dtype's largest finite value.
// Answers as bounded_check_cpu does, and else with some values, none of them NaN or infinite.
Status bounded_decode_cpu(const BoundedPlan& plan, const uint8_t* packed, const int64_t* offset,
                          const float* step, int64_t unit_begin, int64_t unit_end, void* y,
                          DType dtype) noexcept;

// The same for one unit: y takes its values alone, to be read again soon.
Status bounded_decode_unit_cpu(const BoundedPlan& plan, const uint8_t* packed,
                               const int64_t* offset, const float* step, int64_t unit, void* y,
                               DType dtype) noexcept;

}  // namespace qvlmem
