// SPDX-License-Identifier: Apache-2.0
// The codecs that are little more than one op: none, fp16, int8, int4.
#include <ATen/ops/empty.h>

#include "ops/backend.h"
#include "ops/base/check.h"
#include "ops/codec/codec.h"
#include "ops/codec/codec_table.h"
#include "ops/quantize_ops.h"

namespace qvlmem {
namespace {

Payload encode_none(const at::Tensor& x, const CompressOptions&) {
  // A copy that owns only its bytes: what is held must not change with x, nor keep more than x
  // alive.
  at::Tensor copy = at::empty(x.sizes(), x.options());
  copy.copy_(x);
  return {{}, {copy}};
}

at::Tensor decode_none(const Payload& payload, const TensorInfo&) {
  const at::Tensor& x = payload.parts[0];
  at::Tensor copy = at::empty(x.sizes(), x.options());
  copy.copy_(x);
  return copy;
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

template <int kBits>
int64_t least_bytes_int(const at::Tensor& x, const CompressOptions&, int64_t) {
  return x.numel() / (8 / kBits);
}

}  // namespace

const Codec kNoneCodec{CodecId::kNone, "none",      true,       true,
                       encode_none,    decode_none, check_none, least_bytes_none};
const Codec kFp16Codec{CodecId::kFp16, "fp16",      false,      true,
                       encode_fp16,    decode_fp16, check_fp16, least_bytes_fp16};
const Codec kInt8Codec{CodecId::kInt8, "int8",        false,        false,
                       encode_int<8>,  decode_int<8>, check_int<8>, least_bytes_int<8>};
const Codec kInt4Codec{CodecId::kInt4, "int4",        false,        false,
                       encode_int<4>,  decode_int<4>, check_int<4>, least_bytes_int<4>};

}  // namespace qvlmem
