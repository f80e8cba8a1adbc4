// SPDX-License-Identifier: Apache-2.0
// The codecs that are little more than one op: none, fp16, int8, int4.
#include <algorithm>

#include "kernels/base/checked.h"
#include "kernels/half/half.h"
#include "kernels/quantize/quantize.h"
#include "ops/backend.h"
#include "ops/base/check.h"
#include "ops/codec/codec.h"
#include "ops/codec/codec_table.h"
#include "ops/quantize_ops.h"

namespace qvlmem {
namespace {

Payload encode_none(const at::Tensor& x, const CompressOptions&) {
  // What is held must not change with x, nor keep more than x alive.
  return {{}, {ops::copy_of(x)}};
}

at::Tensor decode_none(const Payload& payload, const TensorInfo&) {
  return ops::copy_of(payload.parts[0]);
}

void check_none(const Payload& payload, const TensorInfo& info) {
  check_payload_size("none", payload, 0, 1);
  ops::check_dtype("none", "the part", payload.parts[0], info.dtype);
  ops::check_shape("none", "the part", payload.parts[0], info.shape);
}

int64_t least_bytes_none(const at::Tensor& x, const CompressOptions&, int64_t) {
  return x.nbytes();
}

// params: none. parts: half, scale.
Payload encode_fp16(const at::Tensor& x, const CompressOptions&) {
  auto [half, scale] = backend_of("compress", "x", x).to_fp16(x);
  return {{}, {half, scale}};
}

at::Tensor decode_fp16(const Payload& payload, const TensorInfo& info) {
  return backend_of("decompress", "half", payload.parts[0])
      .from_fp16(payload.parts[0], payload.parts[1], info.dtype);
}

void check_fp16(const Payload& payload, const TensorInfo& info) {
  check_payload_size("fp16", payload, 0, 2);
  ops::check_dtype("fp16", "half", payload.parts[0], at::kHalf);
  ops::check_shape("fp16", "half", payload.parts[0], info.shape);
  ops::check_dtype("fp16", "scale", payload.parts[1],
                   info.dtype == at::kDouble ? at::kDouble : at::kFloat);
  ops::check_shape("fp16", "scale", payload.parts[1], {});
}

ErrorMeasure measure_fp16(const at::Tensor& x, const Payload& payload, const TensorInfo& info) {
  const auto* const half = static_cast<const uint16_t*>(payload.parts[0].const_data_ptr());
  const double scale = payload.parts[1].item<double>();
  const DType dtype = ops::kernel_dtype("fp16", info.dtype);
  const int64_t numel = payload.parts[0].numel();
  const auto end = [&](int64_t piece) { return std::min((piece + 1) * kHalfUnit, numel); };
  return ops::measure_error_of_pieces(
      x, {kHalfUnit, [](int64_t i) { return i / kHalfUnit; },
          [](int64_t piece) { return piece * kHalfUnit; }, end,
          [&](int64_t piece, void* to) {
            const int64_t begin = piece * kHalfUnit;
            HalfPlan plan;
            ops::check_status("fp16", "half", make_half_plan(end(piece) - begin, dtype, &plan));
            half_decode_cpu(plan, half + begin, scale, 0, plan.unit_count, to);
          }});
}

int64_t least_bytes_fp16(const at::Tensor& x, const CompressOptions&, int64_t) {
  return x.numel() * 2;
}

// params: group_size. parts: q, scale, zero_point (empty where symmetric).
template <int kBits>
Payload encode_int(const at::Tensor& x, const CompressOptions& options) {
  auto [q, scale, zero_point] =
      backend_of("compress", "x", x)
          .quantize(x, kBits, options.symmetric, options.group_size, std::nullopt);
  return {{options.group_size}, {q, scale, zero_point}};
}

template <int kBits>
at::Tensor decode_int(const Payload& payload, const TensorInfo& info) {
  return backend_of("decompress", "q", payload.parts[0])
      .dequantize(payload.parts[0], payload.parts[1], payload.parts[2], info.shape, kBits,
                  payload.params[0], info.dtype);
}

template <int kBits>
void check_int(const Payload& payload, const TensorInfo& info) {
  check_payload_size(kBits == 8 ? "int8" : "int4", payload, 1, 3);
  ops::check_quantized(kBits == 8 ? "int8" : "int4", payload.parts[0], payload.parts[1],
                       payload.parts[2], info.shape, kBits, payload.params[0]);
}

// What can be decoded like a tensor of its own: some rows, or some groups of a long one.
struct IntPieces {
  IntPieces(const ops::MatrixShape& shape, int64_t group_size)
      : rows(shape.rows), cols(std::max(shape.cols, int64_t{1})) {
    constexpr int64_t kElements = 32768;
    // Of two groups each, for these fill whole bytes.
    const int64_t step = group_size > 0 ? 2 * std::min(group_size, cols) : 2;
    piece_cols = std::min(std::max(kElements / step, int64_t{1}) * step, cols);
    piece_rows = piece_cols < cols ? 1 : std::max(kElements / cols, int64_t{1});
    pieces_per_row = ceil_div(cols, piece_cols);
  }

  int64_t of(int64_t i) const {
    return i / cols / piece_rows * pieces_per_row + i % cols / piece_cols;
  }
  int64_t row(int64_t piece) const { return piece / pieces_per_row * piece_rows; }
  int64_t col(int64_t piece) const { return piece % pieces_per_row * piece_cols; }
  int64_t row_count(int64_t piece) const { return std::min(piece_rows, rows - row(piece)); }
  int64_t col_count(int64_t piece) const { return std::min(piece_cols, cols - col(piece)); }
  int64_t begin(int64_t piece) const { return row(piece) * cols + col(piece); }
  int64_t end(int64_t piece) const { return begin(piece) + row_count(piece) * col_count(piece); }

  int64_t rows, cols, piece_rows, piece_cols, pieces_per_row;
};

template <int kBits>
ErrorMeasure measure_int(const at::Tensor& x, const Payload& payload, const TensorInfo& info) {
  const auto* const q = static_cast<const uint8_t*>(payload.parts[0].const_data_ptr());
  const auto* const scale = payload.parts[1].const_data_ptr<float>();
  const bool symmetric = payload.parts[2].numel() == 0;
  const auto* const zero_point = symmetric ? nullptr : payload.parts[2].const_data_ptr<int32_t>();
  const int64_t group_size = payload.params[0];
  const DType dtype = ops::kernel_dtype("compress", info.dtype);
  const auto plan_of = [&](int64_t rows, int64_t cols) {
    QuantizePlan plan;
    ops::check_status("compress", "x",
                      make_quantize_plan(rows, cols, kBits, symmetric, group_size, &plan));
    return plan;
  };
  const ops::MatrixShape shape = ops::matrix_shape(info.shape);
  const QuantizePlan whole = plan_of(shape.rows, shape.cols);
  const int64_t row_bytes = ceil_div(shape.cols * kBits, 8);
  const IntPieces pieces(shape, group_size);
  return ops::measure_error_of_pieces(
      x, {pieces.piece_rows * pieces.piece_cols, [&](int64_t i) { return pieces.of(i); },
          [&](int64_t piece) { return pieces.begin(piece); },
          [&](int64_t piece) { return pieces.end(piece); },
          [&](int64_t piece, void* to) {
            const int64_t row = pieces.row(piece), col = pieces.col(piece);
            const QuantizePlan plan = plan_of(pieces.row_count(piece), pieces.col_count(piece));
            const int64_t group =
                whole.per_tensor ? 0 : row * whole.groups_per_row + col / whole.group;
            dequantize_cpu(plan, q + row * row_bytes + col * kBits / 8, scale + group,
                           symmetric ? nullptr : zero_point + group, 0, plan.unit_count, to, dtype);
          }});
}

template <int kBits>
int64_t least_bytes_int(const at::Tensor& x, const CompressOptions&, int64_t) {
  return x.numel() / (8 / kBits);
}

}  // namespace

const Codec kNoneCodec{CodecId::kNone, "none",      true,       true,
                       encode_none,    decode_none, check_none, least_bytes_none};
const Codec kFp16Codec{CodecId::kFp16, "fp16",      false,      true,
                       encode_fp16,    decode_fp16, check_fp16, least_bytes_fp16,
                       nullptr,        nullptr,     false,      measure_fp16};
const Codec kInt8Codec{CodecId::kInt8, "int8",        false,        false,
                       encode_int<8>,  decode_int<8>, check_int<8>, least_bytes_int<8>,
                       nullptr,        nullptr,       false,        measure_int<8>};
const Codec kInt4Codec{CodecId::kInt4, "int4",        false,        false,
                       encode_int<4>,  decode_int<4>, check_int<4>, least_bytes_int<4>,
                       nullptr,        nullptr,       false,        measure_int<4>};

}  // namespace qvlmem
