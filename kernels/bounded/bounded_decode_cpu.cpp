// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/base/stream.h"
#include "kernels/bounded/bounded_coded_simd.h"
#include "kernels/bounded/bounded_unit.h"
#include "kernels/coding/int_pack_simd.h"

namespace qvlmem {
namespace {

// Blocks of integers that lie somewhere in a unit.
struct PackedBlocks {
  const uint8_t* headers;
  const uint8_t* payload;
  size_t payload_bytes;

  // Unpacks the next `count` blocks. REQUIRES: there are as many, and their headers fit the
  // payload.
  void take(size_t count, int32_t* q) {
    QVLMEM_SIMD_PICK(int_unpack)(headers, count, payload, payload_bytes, q);
    const size_t used = QVLMEM_SIMD_PICK(int_unpack_measure)(headers, count);
    headers += count;
    payload += used;
    payload_bytes -= used;
  }
};

// Where the parts of a unit lie.
struct OpenUnit {
  BoundedMode mode;
  PackedBlocks blocks;  // the values, or where coded the escapes
  // Where coded:
  uint32_t low_bits;
  int64_t escapes;
  const uint8_t* planes;
  const uint8_t* symbols;
  size_t symbol_bytes;
};

// Finds `count` blocks at the beginning of bytes [begin, end). kOk only where their headers'
// payload is within.
Status open_blocks(int64_t count, const uint8_t* begin, const uint8_t* end, PackedBlocks* out) {
  if (end - begin < count) return Status::kTruncated;
  out->headers = begin;
  out->payload = begin + count;
  out->payload_bytes =
      QVLMEM_SIMD_PICK(int_unpack_measure)(out->headers, static_cast<size_t>(count));
  if (out->payload_bytes == SIZE_MAX) return Status::kCorrupt;
  const auto there = static_cast<size_t>(end - out->payload);
  return out->payload_bytes <= there ? Status::kOk : Status::kTruncated;
}

Status open_packed(int64_t values, const uint8_t* begin, const uint8_t* end, OpenUnit* out) {
  const Status status = open_blocks(blocks_of(values), begin + 1, end, &out->blocks);
  if (status != Status::kOk) return status;
  return out->blocks.payload + out->blocks.payload_bytes == end ? Status::kOk : Status::kCorrupt;
}

Status open_coded(int64_t values, const uint8_t* begin, const uint8_t* end, OpenUnit* out) {
  if (end - begin < kCodedHeaderBytes) return Status::kTruncated;
  out->low_bits = begin[1];
  out->escapes = 0;
  for (int i = 0; i < 4; ++i) out->escapes |= int64_t{begin[2 + i]} << (8 * i);
  if (out->low_bits > kMaxLowBits || out->escapes > values) return Status::kCorrupt;
  out->planes = begin + kCodedHeaderBytes;
  const int64_t plane_bytes = 4 * int64_t{out->low_bits} * blocks_of(values);
  if (end - out->planes < plane_bytes) return Status::kTruncated;
  const uint8_t* escapes = out->planes + plane_bytes;
  const Status status = open_blocks(blocks_of(out->escapes), escapes, end, &out->blocks);
  if (status != Status::kOk) return status;
  out->symbols = out->blocks.payload + out->blocks.payload_bytes;
  out->symbol_bytes = static_cast<size_t>(end - out->symbols);
  return out->symbol_bytes > 0 ? Status::kOk : Status::kTruncated;
}

// Finds the parts of a unit in its bytes, which may be hostile: kOk only where they fill the bytes
// exactly, as far as can be told without the symbols, and its rows' steps are steps.
Status open_unit(const BoundedPlan& plan, const BoundedUnit& unit, const float* step,
                 const uint8_t* begin, const uint8_t* end, OpenUnit* out) {
  for (int64_t r = unit.row_begin; r < unit.row_end; ++r) {
    if (!(step[r] > 0 && step[r] <= kFloat32Max)) return Status::kCorrupt;
  }
  if (end - begin < 1) return Status::kTruncated;
  const int64_t values = unit.end - unit.begin;
  out->mode = static_cast<BoundedMode>(begin[0]);
  if (out->mode == BoundedMode::kPacked) return open_packed(values, begin, end, out);
  const bool coded = out->mode == BoundedMode::kCoded && plan.form == BoundedForm::kCoded;
  return coded ? open_coded(values, begin, end, out) : Status::kUnsupported;
}

// The integers of a coded unit, piece by piece.
class CodedReader {
 public:
  // kCorrupt where the symbols do not decode.
  Status open(const OpenUnit& unit, int64_t values) {
    unit_ = unit;
    in_block_ = kIntPackBlock;
    std::memset(low_headers_, static_cast<int>(unit.low_bits), sizeof(low_headers_));
    planes_ = PackedBlocks{low_headers_, unit.planes,
                           4 * unit.low_bits * static_cast<size_t>(blocks_of(values))};
    const auto n = static_cast<size_t>(values);
    // The last piece is worked on in whole blocks.
    std::memset(symbols_ + n, 1, kIntPackBlock);
    return huffman_decode(unit.symbols, unit.symbol_bytes, n, symbols_);
  }

  // Values [begin, begin + count) of the unit. False where there are more escapes than it holds.
  bool piece(int64_t begin, int64_t count, int32_t* q) {
    const auto blocks = static_cast<size_t>(blocks_of(count));
    planes_.headers = low_headers_;
    planes_.take(blocks, q);
    QVLMEM_SIMD_PICK(bounded_join)
    (symbols_ + begin, blocks * kIntPackBlock, unit_.low_bits, q);
    for_each_zero(symbols_ + begin, static_cast<size_t>(count),
                  [&](size_t i) { q[i] = --unit_.escapes >= 0 ? next_escape() : 0; });
    return unit_.escapes >= 0;
  }

  // Whether all escapes were taken.
  bool exhausted() const { return unit_.escapes == 0; }

 private:
  int32_t next_escape() {
    if (in_block_ == kIntPackBlock) {
      unit_.blocks.take(1, block_);
      in_block_ = 0;
    }
    return block_[in_block_++];
  }

  OpenUnit unit_;
  PackedBlocks planes_;
  size_t in_block_;
  int32_t block_[kIntPackBlock];
  uint8_t low_headers_[kPieceBlocks];
  alignas(64) uint8_t symbols_[kHuffmanMaxCount + kIntPackBlock];
};

// Writes integers to where their values belong: those of a unit to y.
class Dequantizer {
 public:
  Dequantizer(const BoundedPlan& plan, const float* step, int64_t unit_begin, bool stream, void* y,
              DType dtype)
      : plan_(plan), step_(step), unit_begin_(unit_begin), stream_(stream), y_(y), dtype_(dtype) {}

  void operator()(int64_t begin, int64_t end, const int32_t* q) const {
    for_each_row_run(plan_, begin, end, [&](int64_t row, int64_t from, int64_t to) {
      run_(q + (from - begin), static_cast<size_t>(to - from), step_[row], stream_,
           element(y_, dtype_, from - unit_begin_), dtype_);
    });
  }

 private:
  const BoundedPlan& plan_;
  const float* step_;
  int64_t unit_begin_;
  bool stream_;
  void* y_;
  DType dtype_;
  decltype(&portable::bounded_dequantize_run) run_ = QVLMEM_SIMD_PICK(bounded_dequantize_run);
};

void decode_packed(const BoundedUnit& unit, OpenUnit* open, const Dequantizer& dequantize) {
  alignas(64) int32_t q[kPiece];
  for (int64_t begin = unit.begin; begin < unit.end; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, unit.end);
    open->blocks.take(static_cast<size_t>(blocks_of(end - begin)), q);
    dequantize(begin, end, q);
  }
}

Status decode_coded(const BoundedUnit& unit, const OpenUnit& open, const Dequantizer& dequantize) {
  alignas(64) int32_t q[kPiece];
  CodedReader reader;
  const Status status = reader.open(open, unit.end - unit.begin);
  if (status != Status::kOk) return status;
  for (int64_t begin = unit.begin; begin < unit.end; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, unit.end);
    if (!reader.piece(begin - unit.begin, end - begin, q)) return Status::kCorrupt;
    dequantize(begin, end, q);
  }
  return reader.exhausted() ? Status::kOk : Status::kCorrupt;
}

// Decodes one unit, of which y takes the values alone.
Status decode_unit(const BoundedPlan& plan, const uint8_t* packed, const int64_t* offset,
                   const float* step, int64_t u, bool stream, void* y, DType dtype) {
  const BoundedUnit unit = bounded_unit(plan, u);
  OpenUnit open{};
  const Status status =
      open_unit(plan, unit, step, packed + offset[u], packed + offset[u + 1], &open);
  if (status != Status::kOk) return status;
  const Dequantizer dequantize(plan, step, unit.begin, stream, y, dtype);
  if (open.mode == BoundedMode::kCoded) return decode_coded(unit, open, dequantize);
  decode_packed(unit, &open, dequantize);
  return Status::kOk;
}

}  // namespace

Status bounded_check_cpu(const BoundedPlan& plan, const uint8_t* packed, const int64_t* offset,
                         const float* step, int64_t unit_begin, int64_t unit_end) noexcept {
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    OpenUnit open{};
    const Status status = open_unit(plan, bounded_unit(plan, u), step, packed + offset[u],
                                    packed + offset[u + 1], &open);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

Status bounded_decode_cpu(const BoundedPlan& plan, const uint8_t* packed, const int64_t* offset,
                          const float* step, int64_t unit_begin, int64_t unit_end, void* y,
                          DType dtype) noexcept {
  const bool stream = plan.rows * plan.cols * dtype_bytes(dtype) >= kStreamBytes;
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    void* const to = element(y, dtype, bounded_unit(plan, u).begin);
    const Status status = decode_unit(plan, packed, offset, step, u, stream, to, dtype);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

Status bounded_decode_unit_cpu(const BoundedPlan& plan, const uint8_t* packed,
                               const int64_t* offset, const float* step, int64_t unit, void* y,
                               DType dtype) noexcept {
  return decode_unit(plan, packed, offset, step, unit, false, y, dtype);
}

}  // namespace qvlmem
