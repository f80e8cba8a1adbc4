// SPDX-License-Identifier: Apache-2.0
// A tensor in compressed form: torch.classes.qvlmem.CompressedTensor.
#pragma once

#include <ATen/core/Tensor.h>
#include <qvlmem/api.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <string>
#include <vector>

namespace qvlmem {

// How far the decoded tensor is from the original; -1 where it was not measured.
struct CompressionError {
  double relative = -1.0;   // ||x - y|| / ||x|| (Frobenius)
  double worst_row = -1.0;  // the largest of the same over rows (all but the last dimension)
  double element = -1.0;    // max |x - y| / max |x|
};

// What a codec makes of a tensor: tensors, and the few numbers that it needs beside them.
struct Payload {
  std::vector<int64_t> params;
  std::vector<at::Tensor> parts;
};

// What is known of the original.
struct TensorInfo {
  std::vector<int64_t> shape;
  at::ScalarType dtype;
};

struct Codec;  // an entry of the codec table, ops/codec/codec.h

// Nothing here changes it, so threads may share it.
class QVLMEM_API CompressedTensor final : public torch::CustomClassHolder {
 public:
  CompressedTensor(const Codec& codec, TensorInfo info, Payload payload, CompressionError error);

  // The codec's name: none, int8, int4, fp16, bounded, svd, sparse or lossless.
  std::string method() const;
  std::vector<int64_t> shape() const { return info_.shape; }
  at::ScalarType dtype() const { return info_.dtype; }
  at::Device device() const;

  // Bytes really held: the storages of the parts, each once.
  int64_t nbytes() const;
  int64_t original_nbytes() const;
  // original_nbytes / nbytes; 1 for an empty tensor.
  double ratio() const;

  double relative_error() const { return error_.relative; }
  double worst_row_error() const { return error_.worst_row; }
  double max_element_error() const { return error_.element; }

  // What is held, not copies: writing to them changes what decompress gives.
  std::vector<at::Tensor> parts() const;
  // The same on another device. The parts are shared where they already are there.
  c10::intrusive_ptr<CompressedTensor> to(at::Device device) const;
  // torch's own sparse COO tensor of what decompress gives, of the original's shape and dtype.
  at::Tensor to_sparse_coo() const;

  // The decoded tensor: contiguous, of the original's shape and dtype.
  at::Tensor decompress() const;

  const Codec& codec() const { return *codec_; }
  const TensorInfo& info() const { return info_; }
  const Payload& payload() const { return payload_; }
  const CompressionError& error() const { return error_; }

 private:
  const Codec* codec_;
  TensorInfo info_;
  Payload payload_;
  CompressionError error_;
};

using CompressedTensorPtr = c10::intrusive_ptr<CompressedTensor>;

}  // namespace qvlmem
