// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/base/checked.h"
#include "kernels/base/stream.h"
#include "kernels/bounded/bounded.h"
#include "kernels/bounded/bounded_simd.h"
#include "kernels/coding/int_pack_simd.h"

namespace qvlmem {
namespace {

// Values that are on their way between x and bytes at a time: 8 KiB, in L1. Whole blocks.
constexpr int64_t kPiece = 2048;
constexpr int64_t kPieceBlocks = kPiece / static_cast<int64_t>(kIntPackBlock);

const void* element(const void* base, DType dtype, int64_t index) {
  return static_cast<const char*>(base) + index * dtype_bytes(dtype);
}

void* element(void* base, DType dtype, int64_t index) {
  return static_cast<char*>(base) + index * dtype_bytes(dtype);
}

int64_t blocks_of(int64_t values) { return ceil_div(values, kIntPackBlock); }

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

// Bytes of a packed unit.
int32_t unit_bytes(const Quantizer& quantizer, const BoundedUnit& unit) {
  const auto measure = QVLMEM_SIMD_PICK(int_pack_measure);
  alignas(64) int32_t q[kPiece];
  uint8_t headers[kPieceBlocks];
  size_t bytes = 1;
  for (int64_t begin = unit.begin; begin < unit.end; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, unit.end);
    quantizer.piece(begin, end, q);
    const auto blocks = static_cast<size_t>(blocks_of(end - begin));
    bytes += blocks + measure(q, blocks, headers);
  }
  return static_cast<int32_t>(bytes);
}

// The largest step of one row that holds.
Status solve_row(const void* x, DType dtype, int64_t n, const BoundedTarget& target, float* step) {
  const auto error_run = QVLMEM_SIMD_PICK(bounded_error_run);
  const auto cols = static_cast<size_t>(n);
  BoundedMoments moments;
  QVLMEM_SIMD_PICK(bounded_moments_run)(x, dtype, cols, &moments);
  if (!bounded_is_finite(moments)) return Status::kNonFinite;
  BoundedSearch search = bounded_search(target, moments, n, dtype);
  while (!search.done) {
    BoundedError error;
    error_run(x, dtype, cols, search.step, &error);
    bounded_search_update(bounded_excess(target, moments, error), &search);
  }
  *step = search.best;
  return search.best > 0 ? Status::kOk : Status::kBoundMissed;
}

// Where the parts of a packed unit lie.
struct PackedUnit {
  const uint8_t* headers;
  const uint8_t* payload;
  size_t payload_bytes;
};

// Finds them in bytes [begin, end), which may be hostile: kOk only where the headers' blocks fill
// the payload exactly.
Status open_unit(const BoundedUnit& unit, const uint8_t* packed, int64_t begin, int64_t end,
                 PackedUnit* out) {
  const int64_t blocks = blocks_of(unit.end - unit.begin);
  if (end - begin < 1) return Status::kTruncated;
  if (packed[begin] != kBoundedModePacked) return Status::kUnsupported;
  if (end - begin < 1 + blocks) return Status::kTruncated;
  out->headers = packed + begin + 1;
  out->payload = out->headers + blocks;
  out->payload_bytes = static_cast<size_t>(end - begin - 1 - blocks);
  const size_t announced =
      QVLMEM_SIMD_PICK(int_unpack_measure)(out->headers, static_cast<size_t>(blocks));
  if (announced == SIZE_MAX) return Status::kCorrupt;
  if (announced == out->payload_bytes) return Status::kOk;
  return announced > out->payload_bytes ? Status::kTruncated : Status::kCorrupt;
}

}  // namespace

Status bounded_solve_cpu(const BoundedPlan& plan, const void* x, DType dtype,
                         const BoundedTarget& target, int64_t unit_begin, int64_t unit_end,
                         float* step, int32_t* bytes) noexcept {
  const Quantizer quantizer(plan, x, dtype, step);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    for (int64_t r = unit.row_begin; r < unit.row_end; ++r) {
      const Status status =
          solve_row(element(x, dtype, r * plan.cols), dtype, plan.cols, target, &step[r]);
      if (status != Status::kOk) return status;
    }
    bytes[u] = unit_bytes(quantizer, unit);
  }
  return Status::kOk;
}

void bounded_moments_cpu(const BoundedPlan& plan, const void* x, DType dtype, int64_t unit_begin,
                         int64_t unit_end, BoundedMoments* moments) noexcept {
  const auto run = QVLMEM_SIMD_PICK(bounded_moments_run);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    run(element(x, dtype, unit.begin), dtype, static_cast<size_t>(unit.end - unit.begin),
        &moments[u - unit_begin]);
  }
}

void bounded_measure_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                         int64_t unit_begin, int64_t unit_end, BoundedError* errors,
                         int32_t* bytes) noexcept {
  const auto run = QVLMEM_SIMD_PICK(bounded_error_run);
  const Quantizer quantizer(plan, x, dtype, step);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    run(element(x, dtype, unit.begin), dtype, static_cast<size_t>(unit.end - unit.begin),
        step[unit.row_begin], &errors[u - unit_begin]);
    if (bytes != nullptr) bytes[u] = unit_bytes(quantizer, unit);
  }
}

Status bounded_encode_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                          const int64_t* offset, int64_t unit_begin, int64_t unit_end,
                          uint8_t* packed) noexcept {
  const auto measure = QVLMEM_SIMD_PICK(int_pack_measure);
  const auto pack = QVLMEM_SIMD_PICK(int_pack);
  const Quantizer quantizer(plan, x, dtype, step);
  alignas(64) int32_t q[kPiece];
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    const int64_t blocks = blocks_of(unit.end - unit.begin);
    if (offset[u + 1] - offset[u] < 1 + blocks) return Status::kInvalidArgument;
    uint8_t* const out = packed + offset[u];
    uint8_t* headers = out + 1;
    uint8_t* payload = headers + blocks;
    auto room = static_cast<size_t>(offset[u + 1] - offset[u] - 1 - blocks);
    out[0] = kBoundedModePacked;
    for (int64_t begin = unit.begin; begin < unit.end; begin += kPiece) {
      const int64_t end = std::min(begin + kPiece, unit.end);
      if (!quantizer.piece(begin, end, q)) return Status::kInvalidArgument;
      const auto count = static_cast<size_t>(blocks_of(end - begin));
      measure(q, count, headers);
      const size_t bytes = pack(q, headers, count, payload, room);
      if (bytes > room) return Status::kInvalidArgument;
      headers += count;
      payload += bytes;
      room -= bytes;
    }
    if (room != 0) return Status::kInvalidArgument;
  }
  return Status::kOk;
}

Status bounded_check_cpu(const BoundedPlan& plan, const uint8_t* packed, const int64_t* offset,
                         const float* step, int64_t unit_begin, int64_t unit_end) noexcept {
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    for (int64_t r = unit.row_begin; r < unit.row_end; ++r) {
      if (!(step[r] > 0 && step[r] <= kFloat32Max)) return Status::kCorrupt;
    }
    PackedUnit bytes;
    const Status status = open_unit(unit, packed, offset[u], offset[u + 1], &bytes);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

Status bounded_decode_cpu(const BoundedPlan& plan, const uint8_t* packed, const int64_t* offset,
                          const float* step, int64_t unit_begin, int64_t unit_end, void* y,
                          DType dtype) noexcept {
  const auto measure = QVLMEM_SIMD_PICK(int_unpack_measure);
  const auto unpack = QVLMEM_SIMD_PICK(int_unpack);
  const auto dequantize = QVLMEM_SIMD_PICK(bounded_dequantize_run);
  const bool stream = plan.rows * plan.cols * dtype_bytes(dtype) >= kStreamBytes;
  alignas(64) int32_t q[kPiece];
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const Status status = bounded_check_cpu(plan, packed, offset, step, u, u + 1);
    if (status != Status::kOk) return status;
    const BoundedUnit unit = bounded_unit(plan, u);
    PackedUnit bytes;
    open_unit(unit, packed, offset[u], offset[u + 1], &bytes);
    for (int64_t begin = unit.begin; begin < unit.end; begin += kPiece) {
      const int64_t end = std::min(begin + kPiece, unit.end);
      const auto count = static_cast<size_t>(blocks_of(end - begin));
      unpack(bytes.headers, count, bytes.payload, bytes.payload_bytes, q);
      for_each_row_run(plan, begin, end, [&](int64_t row, int64_t from, int64_t to) {
        dequantize(q + (from - begin), static_cast<size_t>(to - from), step[row], stream,
                   element(y, dtype, from), dtype);
      });
      const size_t used = measure(bytes.headers, count);
      bytes.headers += count;
      bytes.payload += used;
      bytes.payload_bytes -= used;
    }
  }
  return Status::kOk;
}

}  // namespace qvlmem
