// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/base/stream.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/quantize_simd.h"

namespace qvlmem {
namespace {

// 4-bit values pass through here as int8, in pieces that stay in L1.
constexpr int64_t kScratchCols = 4096;

struct Unit {
  int64_t row, col_begin, col_end;
};

Unit unit_of(const QuantizePlan& plan, int64_t index) {
  const int64_t begin = index % plan.units_per_row * plan.unit_cols;
  return Unit{index / plan.units_per_row, begin, std::min(begin + plan.unit_cols, plan.cols)};
}

const void* element(const void* base, DType dtype, int64_t index) {
  return static_cast<const char*>(base) + index * dtype_bytes(dtype);
}

void* element(void* base, DType dtype, int64_t index) {
  return static_cast<char*>(base) + index * dtype_bytes(dtype);
}

// Writes runs of one unit into q: 8 bits in place, 4 bits by way of a scratch that is packed when
// full.
class UnitEncoder {
 public:
  UnitEncoder(const QuantizePlan& plan, const void* x, DType dtype, const uint64_t* seed, void* q)
      : plan_(plan),
        x_(x),
        dtype_(dtype),
        seed_(seed),
        q_(static_cast<uint8_t*>(q)),
        low_(quantize_low(plan.bits, plan.symmetric)),
        high_(quantize_high(plan.bits, plan.symmetric)),
        stream_(plan.rows * plan.row_bytes >= kStreamBytes),
        nearest_(QVLMEM_SIMD_PICK(quantize_nearest_run)),
        stochastic_(QVLMEM_SIMD_PICK(quantize_stochastic_run)),
        pack_(QVLMEM_SIMD_PICK(pack_nibbles)) {}

  void begin(const Unit& unit) {
    unit_ = unit;
    scratch_begin_ = unit.col_begin;
  }

  // Columns [begin, end) of the unit, in order.
  void encode(int64_t begin, int64_t end, const QuantizeGroup& group) {
    const int64_t flat = unit_.row * plan_.cols;
    if (plan_.bits == 8) {
      int8_t* out = reinterpret_cast<int8_t*>(q_) + flat + begin;
      run(flat + begin, end - begin, group, stream_, out);
      return;
    }
    while (begin < end) {
      const int64_t stop = std::min(end, scratch_begin_ + kScratchCols);
      run(flat + begin, stop - begin, group, false, scratch_ + (begin - scratch_begin_));
      begin = stop;
      if (begin == scratch_begin_ + kScratchCols || begin == unit_.col_end) flush(begin);
    }
  }

 private:
  void run(int64_t flat, int64_t n, const QuantizeGroup& group, bool stream, int8_t* out) {
    const void* values = element(x_, dtype_, flat);
    if (seed_ == nullptr) {
      nearest_(values, dtype_, static_cast<size_t>(n), group, low_, high_, stream, out);
    } else {
      stochastic_(values, dtype_, static_cast<size_t>(n), group, low_, high_, *seed_,
                  static_cast<uint64_t>(flat), out);
    }
  }

  void flush(int64_t end) {
    uint8_t* out = q_ + unit_.row * plan_.row_bytes + scratch_begin_ / 2;
    pack_(scratch_, static_cast<size_t>(end - scratch_begin_), out);
    scratch_begin_ = end;
  }

  const QuantizePlan& plan_;
  const void* x_;
  DType dtype_;
  const uint64_t* seed_;
  uint8_t* q_;
  int32_t low_, high_;
  bool stream_;
  decltype(&portable::quantize_nearest_run) nearest_;
  decltype(&portable::quantize_stochastic_run) stochastic_;
  decltype(&portable::pack_nibbles) pack_;
  Unit unit_{};
  int64_t scratch_begin_ = 0;
  alignas(64) int8_t scratch_[kScratchCols];
};

}  // namespace

Status quantize_encode_cpu(const QuantizePlan& plan, const void* x, DType dtype, int64_t unit_begin,
                           int64_t unit_end, const uint64_t* seed, void* q, float* scale,
                           int32_t* zero_point) noexcept {
  const auto range_run = QVLMEM_SIMD_PICK(quantize_range_run);
  UnitEncoder encoder(plan, x, dtype, seed, q);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const Unit unit = unit_of(plan, u);
    encoder.begin(unit);
    for (int64_t col = unit.col_begin; col < unit.col_end; col += plan.group) {
      const int64_t end = std::min(col + plan.group, unit.col_end);
      QuantizeRange range;
      range_run(element(x, dtype, unit.row * plan.cols + col), dtype,
                static_cast<size_t>(end - col), &range);
      if (!range_is_finite(range)) return Status::kNonFinite;
      const QuantizeGroup group = quantize_group(range, plan.bits, plan.symmetric);
      const int64_t index = unit.row * plan.groups_per_row + col / plan.group;
      scale[index] = group.scale;
      if (!plan.symmetric) zero_point[index] = group.zero_point;
      encoder.encode(col, end, group);
    }
  }
  return Status::kOk;
}

void quantize_range_cpu(const QuantizePlan& plan, const void* x, DType dtype, int64_t unit_begin,
                        int64_t unit_end, QuantizeRange* ranges) noexcept {
  const auto range_run = QVLMEM_SIMD_PICK(quantize_range_run);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const Unit unit = unit_of(plan, u);
    range_run(element(x, dtype, unit.row * plan.cols + unit.col_begin), dtype,
              static_cast<size_t>(unit.col_end - unit.col_begin), &ranges[u - unit_begin]);
  }
}

void quantize_encode_scaled_cpu(const QuantizePlan& plan, const void* x, DType dtype,
                                int64_t unit_begin, int64_t unit_end, const uint64_t* seed,
                                const float* scale, const int32_t* zero_point, void* q) noexcept {
  UnitEncoder encoder(plan, x, dtype, seed, q);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const Unit unit = unit_of(plan, u);
    const int64_t index = quantize_group_of_unit(plan, u);
    const QuantizeGroup group{scale[index], 1.0f / scale[index],
                              plan.symmetric ? 0 : zero_point[index]};
    encoder.begin(unit);
    encoder.encode(unit.col_begin, unit.col_end, group);
  }
}

void dequantize_cpu(const QuantizePlan& plan, const void* q, const float* scale,
                    const int32_t* zero_point, int64_t unit_begin, int64_t unit_end, void* y,
                    DType dtype) noexcept {
  const auto decode = QVLMEM_SIMD_PICK(dequantize_run);
  const auto unpack = QVLMEM_SIMD_PICK(unpack_nibbles);
  const bool stream = plan.rows * plan.cols * dtype_bytes(dtype) >= kStreamBytes;
  alignas(64) int8_t scratch[kScratchCols];
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const Unit unit = unit_of(plan, u);
    const int64_t flat = unit.row * plan.cols;
    const int64_t step = plan.bits == 8 ? plan.unit_cols : kScratchCols;
    for (int64_t piece = unit.col_begin; piece < unit.col_end; piece += step) {
      const int64_t piece_end = std::min(piece + step, unit.col_end);
      const int8_t* values = static_cast<const int8_t*>(q) + flat + piece;
      if (plan.bits == 4) {
        const uint8_t* bytes =
            static_cast<const uint8_t*>(q) + unit.row * plan.row_bytes + piece / 2;
        unpack(bytes, static_cast<size_t>(piece_end - piece), plan.symmetric, scratch);
        values = scratch;
      }
      for (int64_t col = piece; col < piece_end;) {
        const int64_t in_row = plan.per_tensor ? 0 : col / plan.group;
        const int64_t end =
            plan.per_tensor ? piece_end : std::min((in_row + 1) * plan.group, piece_end);
        const int64_t index = plan.per_tensor ? 0 : unit.row * plan.groups_per_row + in_row;
        decode(values + (col - piece), static_cast<size_t>(end - col), scale[index],
               plan.symmetric ? 0 : zero_point[index], stream, element(y, dtype, flat + col),
               dtype);
        col = end;
      }
    }
  }
}

}  // namespace qvlmem
