// SPDX-License-Identifier: Apache-2.0
#include <qvlmem/compressed_tensor.h>

#include <c10/core/ScalarType.h>

#include <algorithm>

#include "ops/backend.h"
#include "ops/base/check.h"
#include "ops/codec/codec.h"

namespace qvlmem {
namespace {

// Whether a kernel may read them: parts() lets a storage out of hand, and storages can be resized.
void check_parts(const char* op, const std::vector<at::Tensor>& parts) {
  ops::check_device(op, "parts", parts.at(0));
  for (const at::Tensor& part : parts) {
    TORCH_CHECK_VALUE(part.storage().nbytes() >= part.nbytes(), "qvlmem::", op,
                      ": expected parts as they were made, got one of ", part.nbytes(),
                      " bytes with a storage of ", part.storage().nbytes());
  }
}

}  // namespace

CompressedTensor::CompressedTensor(const Codec& codec, TensorInfo info, Payload payload,
                                   CompressionError error)
    : codec_(&codec), info_(std::move(info)), payload_(std::move(payload)), error_(error) {}

std::string CompressedTensor::method() const { return codec_->name; }

at::Device CompressedTensor::device() const { return payload_.parts.at(0).device(); }

int64_t CompressedTensor::nbytes() const {
  std::vector<const c10::StorageImpl*> seen;
  int64_t bytes = 0;
  for (const at::Tensor& part : payload_.parts) {
    const c10::StorageImpl* storage = part.storage().unsafeGetStorageImpl();
    if (std::find(seen.begin(), seen.end(), storage) != seen.end()) continue;
    seen.push_back(storage);
    bytes += static_cast<int64_t>(part.storage().nbytes());
  }
  return bytes;
}

int64_t CompressedTensor::original_nbytes() const {
  return c10::multiply_integers(info_.shape) * static_cast<int64_t>(c10::elementSize(info_.dtype));
}

std::vector<at::Tensor> CompressedTensor::parts() const {
  std::vector<at::Tensor> parts;
  // Tensors of their own, so that resizing or setting one leaves what is held.
  for (const at::Tensor& part : payload_.parts) parts.push_back(part.detach());
  return parts;
}

double CompressedTensor::ratio() const {
  if (original_nbytes() == 0) return 1.0;
  return static_cast<double>(original_nbytes()) / static_cast<double>(nbytes());
}

CompressedTensorPtr CompressedTensor::to(at::Device device) const {
  Payload payload{payload_.params, {}};
  for (const at::Tensor& part : payload_.parts) payload.parts.push_back(part.to(device));
  return c10::make_intrusive<CompressedTensor>(*codec_, info_, std::move(payload), error_);
}

at::Tensor CompressedTensor::decompress() const {
  check_parts("decompress", payload_.parts);
  const RealTensorsGuard guard;
  return codec_->decode(payload_, info_);
}

at::Tensor CompressedTensor::to_sparse_coo() const {
  if (codec_->to_sparse_coo != nullptr) {
    check_parts("to_sparse_coo", payload_.parts);
    const RealTensorsGuard guard;
    return codec_->to_sparse_coo(payload_, info_);
  }
  const at::Tensor dense = decompress();
  return dense.dim() == 0 ? dense.to_sparse(0) : dense.to_sparse();
}

at::Tensor where_codec_runs(const Codec& codec, const at::Tensor& x,
                            const CompressOptions& options) {
  return codec.encodes_on_device(options) ? x
                                          : backend_of("compress", "x", x).to_host("compress", x);
}

at::Tensor decompress(const CompressedTensorPtr& c) { return c->decompress(); }

namespace {

ErrorMeasure measure(const Codec& codec, const at::Tensor& values, const Payload& payload,
                     const TensorInfo& info) {
  if (codec.measure_cpu != nullptr && values.is_cpu()) {
    return codec.measure_cpu(values, payload, info);
  }
  return backend_of("compress", "x", values).measure_error(values, codec.decode(payload, info));
}

}  // namespace

CompressedTensorPtr compress_with(const Codec& codec, const at::Tensor& x,
                                  const CompressOptions& options, int64_t most_bytes) {
  TORCH_CHECK_TYPE(codec.takes(x.scalar_type()),
                   "qvlmem::compress: expected x to be float32, float16 or bfloat16",
                   codec.takes_float64 ? " or float64" : "", " for method '", codec.name, "', got ",
                   ops::describe(x), " (methods lossless and none take every dtype)");
  const at::Tensor values = x.detach().resolve_conj().resolve_neg();
  TensorInfo info{values.sizes().vec(), values.scalar_type()};
  Payload payload = codec.encode_within != nullptr
                        ? codec.encode_within(values, options, most_bytes)
                        : codec.encode(values, options);
  CompressionError error{0.0, 0.0, 0.0};
  if (!codec.exact) {
    const ErrorMeasure measured = measure(codec, values, payload, info);
    error = {measured.relative, measured.worst_row, measured.element};
  }
  return c10::make_intrusive<CompressedTensor>(codec, std::move(info), std::move(payload), error);
}

}  // namespace qvlmem
