// SPDX-License-Identifier: Apache-2.0
// pack and unpack: between a CompressedTensor and a frame (kernels/frame/frame.h).
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "kernels/frame/frame.h"
#include "ops/base/check.h"
#include "ops/codec/codec.h"

namespace qvlmem {
namespace {

FrameHeader header_of(const CompressedTensor& c) {
  FrameHeader header;
  const Payload& payload = c.payload();
  const size_t dims = c.info().shape.size();
  TORCH_CHECK_VALUE(dims <= kFrameMaxDims, "qvlmem::pack: expected at most ", kFrameMaxDims,
                    " dimensions, got ", dims);
  TORCH_INTERNAL_ASSERT(payload.params.size() <= kFrameMaxParams &&
                        payload.parts.size() <= kFrameMaxParts);
  header.codec = static_cast<uint8_t>(c.codec().id);
  header.dtype = ops::kernel_dtype("pack", c.dtype());
  header.dims = static_cast<int>(dims);
  header.params = static_cast<int>(payload.params.size());
  header.parts = static_cast<int>(payload.parts.size());
  header.error[0] = c.error().relative;
  header.error[1] = c.error().worst_row;
  header.error[2] = c.error().element;
  std::copy(c.info().shape.begin(), c.info().shape.end(), header.shape);
  std::copy(payload.params.begin(), payload.params.end(), header.param);
  for (int p = 0; p < header.parts; ++p) {
    const at::Tensor& part = payload.parts[p];
    TORCH_INTERNAL_ASSERT(part.dim() <= kFrameMaxDims);
    header.part[p].dtype = ops::kernel_dtype("pack", part.scalar_type());
    header.part[p].dims = static_cast<int>(part.dim());
    std::copy(part.sizes().begin(), part.sizes().end(), header.part[p].shape);
  }
  TORCH_CHECK_VALUE(lay_out_frame(&header), "qvlmem::pack: the sizes overflow 63 bits");
  return header;
}

}  // namespace

at::Tensor pack(const CompressedTensorPtr& c) {
  const FrameHeader header = header_of(*c);
  at::Tensor frame = at::empty({header.frame_bytes}, at::kByte);
  uint8_t* bytes = frame.mutable_data_ptr<uint8_t>();
  write_frame_header(header, bytes);
  for (int p = 0; p < header.parts; ++p) {
    const at::Tensor part = c->payload().parts[p].cpu().contiguous();
    if (header.part[p].bytes > 0) {
      std::memcpy(bytes + header.part[p].offset, part.const_data_ptr(),
                  static_cast<size_t>(header.part[p].bytes));
    }
  }
  seal_frame(bytes, header.frame_bytes);
  return frame;
}

CompressedTensorPtr unpack(const at::Tensor& frame, std::optional<at::Device> device) {
  ops::check_dtype("unpack", "frame", frame, at::kByte);
  TORCH_CHECK_VALUE(frame.dim() == 1 && frame.device().is_cpu(),
                    "qvlmem::unpack: expected frame to be a flat tensor on cpu, got ",
                    ops::describe(frame));
  const RealTensorsGuard guard;
  const at::Tensor bytes = frame.contiguous();
  const uint8_t* data = bytes.const_data_ptr<uint8_t>();
  FrameHeader header;
  const FrameStatus status = parse_frame(data, bytes.numel(), &header);
  TORCH_CHECK_VALUE(status == FrameStatus::kOk, "qvlmem::unpack: refused a frame of ",
                    bytes.numel(), " bytes: ", frame_status_text(status));
  const Codec* codec = find_codec(static_cast<CodecId>(header.codec));
  TORCH_CHECK_VALUE(codec != nullptr, "qvlmem::unpack: refused a frame of ", bytes.numel(),
                    " bytes: codec number ", static_cast<int>(header.codec),
                    " is unknown to this library");
  TensorInfo info{{header.shape, header.shape + header.dims}, ops::torch_dtype(header.dtype)};
  TORCH_CHECK_VALUE(codec->takes(info.dtype), "qvlmem::unpack: refused a frame of ", bytes.numel(),
                    " bytes: codec ", codec->name, " does not take ", ops::describe(info.dtype));
  const bool claims_loss = std::any_of(std::begin(header.error), std::end(header.error),
                                       [](double e) { return e > 0.0; });
  TORCH_CHECK_VALUE(!codec->exact || !claims_loss, "qvlmem::unpack: refused a frame of ",
                    bytes.numel(), " bytes: codec ", codec->name,
                    " is exact, but the header has an error above 0");
  Payload payload{{header.param, header.param + header.params}, {}};
  for (int p = 0; p < header.parts; ++p) {
    const FramePart& part = header.part[p];
    at::Tensor tensor = at::empty(at::IntArrayRef(part.shape, part.dims),
                                  at::TensorOptions().dtype(ops::torch_dtype(part.dtype)));
    if (part.bytes > 0) {
      std::memcpy(tensor.mutable_data_ptr(), data + part.offset, static_cast<size_t>(part.bytes));
    }
    payload.parts.push_back(std::move(tensor));
  }
  codec->check(payload, info);
  auto c = c10::make_intrusive<CompressedTensor>(
      *codec, std::move(info), std::move(payload),
      CompressionError{header.error[0], header.error[1], header.error[2]});
  return device && *device != at::kCPU ? c->to(*device) : c;
}

}  // namespace qvlmem
