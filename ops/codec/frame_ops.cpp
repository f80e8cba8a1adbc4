// SPDX-License-Identifier: Apache-2.0
// pack and unpack: between a CompressedTensor and a frame (kernels/frame/frame.h).
#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "kernels/frame/frame.h"
#include "ops/backend.h"
#include "ops/base/check.h"
#include "ops/base/parallel.h"
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

// From here on a frame has enough units for all threads; smaller ones get a thread each.
constexpr int64_t kSharedFrameBytes = int64_t{4} << 20;

struct Opened {
  const Codec* codec;
  TensorInfo info;
  Payload payload;  // views of the frame's bytes
  CompressionError error;
};

// What is in a frame, checked but for what only decoding shows. REQUIRES: `frame` is contiguous and
// outlives the payload. op: for errors.
Opened open_frame(const char* op, const at::Tensor& frame) {
  const uint8_t* data = frame.const_data_ptr<uint8_t>();
  const auto refuse = [&](const auto&... why) {
    TORCH_CHECK_VALUE(false, "qvlmem::", op, ": refused a frame of ", frame.numel(),
                      " bytes: ", why...);
  };
  FrameHeader header;
  const FrameStatus status = parse_frame(data, frame.numel(), &header);
  if (status != FrameStatus::kOk) refuse(frame_status_text(status));
  const Codec* codec = find_codec(static_cast<CodecId>(header.codec));
  if (codec == nullptr) {
    refuse("codec number ", static_cast<int>(header.codec), " is unknown to this library");
  }
  TensorInfo info{{header.shape, header.shape + header.dims}, ops::torch_dtype(header.dtype)};
  if (!codec->takes(info.dtype)) {
    refuse("codec ", codec->name, " does not take ", ops::describe(info.dtype));
  }
  const bool claims_loss = std::any_of(std::begin(header.error), std::end(header.error),
                                       [](double e) { return e > 0.0; });
  if (codec->exact && claims_loss) {
    refuse("codec ", codec->name, " is exact, but the header has an error above 0");
  }
  Payload payload{{header.param, header.param + header.params}, {}};
  for (int p = 0; p < header.parts; ++p) {
    const FramePart& part = header.part[p];
    payload.parts.push_back(at::from_blob(const_cast<uint8_t*>(data) + part.offset,
                                          {part.shape, part.shape + part.dims},
                                          at::TensorOptions().dtype(ops::torch_dtype(part.dtype))));
  }
  codec->check(payload, info);
  return {codec,
          std::move(info),
          std::move(payload),
          {header.error[0], header.error[1], header.error[2]}};
}

void check_frame(const char* op, const at::Tensor& frame) {
  ops::check_dtype(op, "frame", frame, at::kByte);
  TORCH_CHECK_VALUE(frame.dim() == 1 && frame.device().is_cpu(), "qvlmem::", op,
                    ": expected frame to be a flat tensor on cpu, got ", ops::describe(frame));
}

// The frame where kernels may read its parts in place: contiguous, and aligned as tensors are.
at::Tensor aligned_frame(const at::Tensor& frame) {
  const at::Tensor bytes = frame.contiguous();
  const auto address = reinterpret_cast<uintptr_t>(bytes.const_data_ptr());
  return address % kFrameAlignment == 0 ? bytes : bytes.clone();
}

}  // namespace

at::Tensor pack(const CompressedTensorPtr& c) {
  const FrameHeader header = header_of(*c);
  at::Tensor frame = at::empty({header.frame_bytes}, at::kByte);
  uint8_t* bytes = frame.mutable_data_ptr<uint8_t>();
  write_frame_header(header, bytes);
  for (int p = 0; p < header.parts; ++p) {
    const at::Tensor& held = c->payload().parts[p];
    const at::Tensor part = backend_of("pack", "parts", held).to_host("pack", held).contiguous();
    if (header.part[p].bytes > 0) {
      std::memcpy(bytes + header.part[p].offset, part.const_data_ptr(),
                  static_cast<size_t>(header.part[p].bytes));
    }
  }
  seal_frame(bytes, header.frame_bytes);
  return frame;
}

CompressedTensorPtr unpack(const at::Tensor& frame, std::optional<at::Device> device) {
  check_frame("unpack", frame);
  const RealTensorsGuard guard;
  const at::Tensor bytes = aligned_frame(frame);
  Opened opened = open_frame("unpack", bytes);
  // Tensors of their own: the frame may be reused, and what is held owns only its bytes.
  for (at::Tensor& part : opened.payload.parts) part = part.clone();
  auto c = c10::make_intrusive<CompressedTensor>(*opened.codec, std::move(opened.info),
                                                 std::move(opened.payload), opened.error);
  return device && *device != at::kCPU ? c->to(*device) : c;
}

std::vector<at::Tensor> decompress_frames(at::TensorList frames) {
  for (const at::Tensor& frame : frames) check_frame("decompress_frames", frame);
  std::vector<at::Tensor> tensors(frames.size());
  const auto decode = [&](size_t i) {
    const RealTensorsGuard guard;
    const at::Tensor bytes = aligned_frame(frames[i]);
    const Opened opened = open_frame("decompress_frames", bytes);
    tensors[i] = opened.codec->decode(opened.payload, opened.info);
  };
  std::vector<size_t> small;
  for (size_t i = 0; i < frames.size(); ++i) {
    if (frames[i].numel() < kSharedFrameBytes) {
      small.push_back(i);
    } else {
      decode(i);
    }
  }
  std::atomic<size_t> next{0};
  const auto threads = std::min<int64_t>(at::get_num_threads(), static_cast<int64_t>(small.size()));
  ops::parallel_units(threads, 1, [&](int64_t begin, int64_t end) {
    for (; begin < end; ++begin) {
      for (size_t i; (i = next++) < small.size();) decode(small[i]);
    }
  });
  return tensors;
}

}  // namespace qvlmem
