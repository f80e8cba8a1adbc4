// SPDX-License-Identifier: Apache-2.0
// The codec table: the one list of what compress can do. A codec is a row of it, made in the
// codec's own ops source; nothing else knows which codecs there are.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <qvlmem/qvlmem.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/error/error.h"
#include "kernels/frame/codec_id.h"

namespace qvlmem {

struct Codec {
  CodecId id;
  const char* name;
  // Bit for bit: its error is 0 without being measured, and it takes every dtype.
  bool exact;
  // Whether it takes float64 beside float32, float16 and bfloat16. For codecs that are not exact.
  bool takes_float64;
  // x: a tensor that the codec takes, detached, of any strides. Raises what its own op raises.
  Payload (*encode)(const at::Tensor& x, const CompressOptions& options);
  // A contiguous tensor of info's shape and dtype. REQUIRES: check has passed.
  at::Tensor (*decode)(const Payload& payload, const TensorInfo& info);
  // Raises ValueError or TypeError unless the params and the parts' shapes and dtypes are what
  // encode makes: a payload may come from outside. Coded bytes inside a part may be left to decode,
  // which refuses them.
  void (*check)(const Payload& payload, const TensorInfo& info);
  // Bytes that encode would hold for x, where they can be told (or bounded from below) cheaply;
  // else 0. Above most_bytes any bound is as good.
  int64_t (*least_bytes)(const at::Tensor& x, const CompressOptions& options, int64_t most_bytes);
  // torch's sparse COO tensor of what decode gives, for codecs that need not decode for it.
  at::Tensor (*to_sparse_coo)(const Payload& payload, const TensorInfo& info) = nullptr;
  // encode, or ValueError as soon as it is clear that it would hold more than most_bytes: for
  // codecs that can tell halfway.
  Payload (*encode_within)(const at::Tensor& x, const CompressOptions& options,
                           int64_t most_bytes) = nullptr;

  // Whether encode with prefer:size takes x on the host alone: what is coded by entropy.
  bool size_on_host = false;

  // How far what decode gives is from x, both on the CPU, without a decoded tensor: for codecs that
  // decode piece by piece.
  ErrorMeasure (*measure_cpu)(const at::Tensor& x, const Payload& payload,
                              const TensorInfo& info) = nullptr;

  bool encodes_on_device(const CompressOptions& options) const {
    return !(size_on_host && options.prefer == Prefer::kSize);
  }
  bool takes(at::ScalarType dtype) const {
    return exact || dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16 ||
           (takes_float64 && dtype == at::kDouble);
  }
};

// While it lives, Python's dispatch modes are not asked: what codecs allocate they also fill, which
// a fake tensor would not bear. Methods of classes reach them without the dispatcher.
class RealTensorsGuard {
 private:
  c10::impl::ExcludeDispatchKeyGuard guard_{
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot})};
};

const std::vector<const Codec*>& codec_table();
// nullptr where there is none of that name or number.
const Codec* find_codec(const std::string& name);
const Codec* find_codec(CodecId id);
// "auto, none, int8, ...": for error messages.
std::string codec_names();

// ValueError unless `text` is tensor, row or element.
Bound parse_bound(const char* op, const std::string& text);
double error_within(Bound bound, const CompressionError& error);

// For checks of payloads. ValueError unless it has so many params and parts.
void check_payload_size(const char* codec, const Payload& payload, size_t params, size_t parts);

// x, or its copy on the host where the codec encodes only there.
at::Tensor where_codec_runs(const Codec& codec, const at::Tensor& x,
                            const CompressOptions& options);

// Encodes x (taken detached) with one codec and measures the error that decoding leaves. REQUIRES:
// x is where the codec runs. TypeError where the codec does not take x's dtype. A codec with
// encode_within raises ValueError where it would hold more than most_bytes.
CompressedTensorPtr compress_with(const Codec& codec, const at::Tensor& x,
                                  const CompressOptions& options,
                                  int64_t most_bytes = std::numeric_limits<int64_t>::max());

}  // namespace qvlmem
