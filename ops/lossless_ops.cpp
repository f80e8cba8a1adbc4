// SPDX-License-Identifier: Apache-2.0
#include "ops/lossless_ops.h"

#include <ATen/ops/empty.h>

#include <atomic>

#include "kernels/base/stream.h"
#include "kernels/lossless/lossless.h"
#include "ops/backend.h"
#include "ops/base/check.h"
#include "ops/base/ordered_units.h"
#include "ops/base/output.h"
#include "ops/base/parallel.h"
#include "ops/base/reserved_bytes.h"
#include "ops/codec/codec.h"
#include "ops/codec/codec_table.h"

namespace qvlmem::ops {
namespace {

// Units that a thread takes at least, below which waking one costs more.
constexpr int64_t kGrain = 2;

LosslessPlan plan_of(const at::Tensor& bytes, const uint8_t* data) {
  LosslessPlan plan;
  const Status status = lossless_read_plan(data, bytes.numel(), &plan);
  TORCH_CHECK_VALUE(status == Status::kOk, "qvlmem::lossless_decode: refused ", bytes.numel(),
                    " bytes: ", status_text(status));
  return plan;
}

void check_bytes(const at::Tensor& bytes) {
  check_dtype("lossless_decode", "bytes", bytes, at::kByte);
  TORCH_CHECK_VALUE(bytes.dim() == 1, "qvlmem::lossless_decode: expected bytes to be flat, got ",
                    describe(bytes));
}

// Raises unless the bytes hold a tensor of the call's plan, as far as their header tells.
LosslessPlan check_encoded(const LosslessDecodeCall& call, at::IntArrayRef shape) {
  const LosslessPlan plan = plan_of(call.bytes, call.bytes.const_data_ptr<uint8_t>());
  TORCH_CHECK_TYPE(plan.dtype == call.plan.dtype, "qvlmem::lossless_decode: expected dtype to be ",
                   describe(torch_dtype(plan.dtype)), ", which the bytes hold, got ",
                   describe(torch_dtype(call.plan.dtype)));
  TORCH_CHECK_VALUE(plan.count == call.plan.count,
                    "qvlmem::lossless_decode: expected shape to have ", plan.count,
                    " elements, which the bytes hold, got ", shape);
  return plan;
}

}  // namespace

LosslessEncodeCall prepare_lossless_encode(const at::Tensor& x, int64_t level) {
  check_dense("lossless_encode", "x", x);
  TORCH_CHECK_VALUE(level == 1 || level == 2,
                    "qvlmem::lossless_encode: expected level to be 1 or 2, got ", level);
  const DType dtype = kernel_dtype("lossless_encode", x.scalar_type());
  LosslessEncodeCall call;
  check_status("lossless_encode", "x", make_lossless_plan(x.numel(), dtype, &call.plan));
  call.values = contiguous(x);
  return call;
}

LosslessDecodeCall prepare_lossless_decode(const at::Tensor& bytes, at::IntArrayRef shape,
                                           at::ScalarType dtype) {
  check_bytes(bytes);
  const DType expected = kernel_dtype("lossless_decode", dtype);
  const int64_t count = check_sizes("lossless_decode", shape, dtype_bytes(expected));
  LosslessDecodeCall call;
  check_status("lossless_decode", "shape", make_lossless_plan(count, expected, &call.plan));
  call.bytes = bytes.contiguous();
  return call;
}

at::Tensor lossless_encode_cpu(const at::Tensor& x, int64_t level) {
  const auto [plan_found, values] = prepare_lossless_encode(x, level);
  const LosslessPlan& plan = plan_found;
  const void* data = values.const_data_ptr();
  ReservedBytes bytes(plan.bound_bytes);
  lossless_write_header(plan, bytes.data());
  const int level_number = static_cast<int>(level);
  const bool large = plan.bound_bytes >= kStreamBytes;
  int64_t end = plan.header_bytes;
  encode_in_order(
      plan.unit_count, kGrain, plan.unit_bound_bytes, bytes.data(),
      [&](int64_t unit, bool in_place, uint8_t* to) {
        return lossless_encode_unit_cpu(plan, data, unit, level_number, in_place && large, to);
      },
      [&](int64_t unit) {
        bytes.expect(expected_end(plan.header_bytes, end, unit, plan.unit_count));
        return lossless_unit_begin(end);
      },
      [&](int64_t unit, int64_t unit_end) {
        end = unit_end;
        lossless_write_unit_end(plan, unit, end, bytes.data());
      },
      [&](const uint8_t* from, int64_t size, uint8_t* to, int64_t next) {
        lossless_copy_unit_cpu(plan, from, size, large, to, data, next);
      });
  return bytes.take(end);
}

at::Tensor lossless_decode_cpu(const at::Tensor& bytes, at::IntArrayRef shape,
                               at::ScalarType dtype) {
  const LosslessDecodeCall call = prepare_lossless_decode(bytes, shape, dtype);
  const at::Tensor& flat = call.bytes;
  const LosslessPlan plan = check_encoded(call, shape);
  at::Tensor y = empty_output(shape, flat.options().dtype(dtype));
  const uint8_t* data = flat.const_data_ptr<uint8_t>();
  std::atomic<bool> damaged{false};
  parallel_units(plan.unit_count, kGrain, [&](int64_t begin, int64_t end) {
    const Status status = qvlmem::lossless_decode_cpu(plan, data, begin, end, y.mutable_data_ptr());
    if (status != Status::kOk) damaged.store(true, std::memory_order_relaxed);
  });
  TORCH_CHECK_VALUE(!damaged, "qvlmem::lossless_decode: refused ", flat.numel(),
                    " bytes: ", status_text(Status::kCorrupt));
  return y;
}

at::Tensor lossless_decode_meta(const at::Tensor& bytes, c10::SymIntArrayRef shape,
                                at::ScalarType dtype) {
  check_bytes(bytes);
  kernel_dtype("lossless_decode", dtype);
  return at::empty_symint(shape, bytes.options().dtype(dtype));
}

}  // namespace qvlmem::ops

namespace qvlmem {
namespace {

// No params. One part: the bytes.
Payload encode_lossless(const at::Tensor& x, const CompressOptions& options) {
  const int64_t level = options.prefer == Prefer::kSize ? 2 : 1;
  return {{}, {backend_of("compress", "x", x).lossless_encode(x, level)}};
}

at::Tensor decode_lossless(const Payload& payload, const TensorInfo& info) {
  return backend_of("decompress", "bytes", payload.parts[0])
      .lossless_decode(payload.parts[0], info.shape, info.dtype);
}

void check_lossless(const Payload& payload, const TensorInfo& info) {
  check_payload_size("lossless", payload, 0, 1);
  ops::check_encoded(ops::prepare_lossless_decode(payload.parts[0], info.shape, info.dtype),
                     info.shape);
}

int64_t least_bytes_lossless(const at::Tensor&, const CompressOptions&, int64_t) { return 0; }

}  // namespace

const Codec kLosslessCodec{CodecId::kLossless,
                           "lossless",
                           true,
                           true,
                           encode_lossless,
                           decode_lossless,
                           check_lossless,
                           least_bytes_lossless,
                           nullptr,
                           nullptr,
                           true};

}  // namespace qvlmem
