// SPDX-License-Identifier: Apache-2.0
// Lossless coding of tensors of every dtype, bit by bit exact, NaN payloads included. Level 1 packs
// at memory speed, level 2 codes by entropy; one format and one decoder serve both.
//
// Layout (all words little-endian):
//   magic     4 bytes, kLosslessMagic, with the version of the format in the last
//   dtype     1 byte, a DType
//   reserved  3 bytes, 0
//   count     8 bytes, elements
//   ends      8 bytes a unit: where the unit ends, counted from the beginning
//   units     each from the next multiple of 32 bytes on, the bytes before it 0
// Elements are scalars of 1, 2, 4 or 8 bytes (a complex one is two). A unit is 128 KiB of them, the
// last what is left. Scalars are mapped to words of which the high bytes vary little: a float's
// sign moves from above its exponent to below it; signed integers are zigzag-coded; others stay.
// The words of a unit are split into planes, one for each of their bytes, the lowest first. A unit
// is
//   entries   8 words of 32 bits, one a plane, then 0: in the top byte how the plane is coded
//             (LosslessMode), in the others its bytes here
//   planes    first the raw ones, in order, then the others, in order
// or, where its planes do not shrink, a first entry of kStored, and its scalars as they were.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/macros.h"
#include "kernels/base/status.h"

namespace qvlmem {

constexpr uint8_t kLosslessMagic[4] = {'Q', 'V', 'L', 1};
constexpr int64_t kLosslessFixedBytes = 16;
constexpr int64_t kLosslessAlignment = 32;
constexpr int64_t kLosslessUnitBytes = int64_t{1} << 17;  // of scalars
constexpr int64_t kLosslessEntriesBytes = 32;

// How a plane is coded. The numeric values are in the format.
enum class LosslessMode : uint8_t {
  kRaw = 0,       // as it is
  kConstant = 1,  // one byte, which all are
  kPacked = 2,    // kernels/coding/byte_pack.h
  kHuffman = 3,   // kernels/coding/huffman.h
  kStored = 4,    // the whole unit is as it was
};

// How a scalar becomes a word.
struct LosslessMap {
  enum Kind : uint8_t { kNone, kZigzag, kFloat } kind = kNone;
  int mantissa_bits = 0;  // where kFloat: 1 or more
};

struct LosslessPlan {
  DType dtype = DType::kUInt8;
  LosslessMap map;
  int64_t count = 0;         // elements
  int64_t scalars = 0;       // count, or twice that where complex
  int64_t scalar_bytes = 1;  // 1, 2, 4 or 8
  int64_t unit_scalars = 0;  // of every unit but the last
  int64_t unit_count = 0;
  int64_t header_bytes = 0;      // up to the first unit
  int64_t unit_bound_bytes = 0;  // what a unit takes at most
  int64_t bound_bytes = 0;       // what the whole takes at most
};

// kInvalidArgument for a negative count or no DType, kOverflow where a size does not fit.
Status make_lossless_plan(int64_t count, DType dtype, LosslessPlan* plan) noexcept;

// Writes everything up to the first unit, but for the ends of units.
void lossless_write_header(const LosslessPlan& plan, uint8_t* bytes) noexcept;

// Where a unit begins whose predecessor ends at `end` (the first one: at plan.header_bytes).
QVLMEM_HD constexpr int64_t lossless_unit_begin(int64_t end) {
  return (end + kLosslessAlignment - 1) / kLosslessAlignment * kLosslessAlignment;
}

// Writes where unit `unit` ends, and zeros from there to where the next one begins, if there is
// one.
void lossless_write_unit_end(const LosslessPlan& plan, int64_t unit, int64_t end,
                             uint8_t* bytes) noexcept;

// Encodes one unit of x (dense) into `out`, at most unit_bound_bytes and never more than its
// scalars and kLosslessEntriesBytes; returns how many. level: 1 or 2. stream: past the caches what
// is not read again, where out is aligned to kLosslessAlignment.
int64_t lossless_encode_unit_cpu(const LosslessPlan& plan, const void* x, int64_t unit, int level,
                                 bool stream, uint8_t* out) noexcept;

// Copies an encoded unit to its place, and has the scalars of unit `next` of x (plan.unit_count: of
// none) fetched meanwhile: reading and writing memory in turn takes longer than both at once.
// stream: as above.
void lossless_copy_unit_cpu(const LosslessPlan& plan, const uint8_t* unit, int64_t bytes,
                            bool stream, uint8_t* out, const void* x, int64_t next) noexcept;

// Reads what `size` bytes say they hold, and checks that their header, the ends of their units and
// `size` agree. kUnsupported: of a newer version; kTruncated: they end too early; kCorrupt: they
// contradict themselves, or go on after their end.
Status lossless_read_plan(const uint8_t* bytes, int64_t size, LosslessPlan* plan) noexcept;

// Decodes units [unit_begin, unit_end) to their places in y. REQUIRES: lossless_read_plan made the
// plan of these bytes. kCorrupt: a unit contradicts itself; its values are then unspecified.
Status lossless_decode_cpu(const LosslessPlan& plan, const uint8_t* bytes, int64_t unit_begin,
                           int64_t unit_end, void* y) noexcept;

}  // namespace qvlmem
