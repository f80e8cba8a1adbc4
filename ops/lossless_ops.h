// SPDX-License-Identifier: Apache-2.0
// qvlmem::lossless_encode and qvlmem::lossless_decode. Format: kernels/lossless/lossless.h.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include "kernels/lossless/lossless.h"

namespace qvlmem::ops {

// x: any dtype that is not quantized, any shape and strides. level: 1 (fast) or 2 (small). Returns
// a flat uint8 tensor. ValueError for the level, NotImplementedError for the dtype.
at::Tensor lossless_encode_cpu(const at::Tensor& x, int64_t level);
// Level 2 is coded on the host.
at::Tensor lossless_encode_cuda(const at::Tensor& x, int64_t level);

// The tensor that was encoded, contiguous. ValueError where `bytes` are damaged, cut short, go on
// after their end or hold another number of elements than `shape`; TypeError where they hold
// another dtype.
at::Tensor lossless_decode_cpu(const at::Tensor& bytes, at::IntArrayRef shape,
                               at::ScalarType dtype);
// While a stream is captured what cannot be decoded on the device, coded by entropy or damaged, is
// not refused (ops/base/device_flag.h).
at::Tensor lossless_decode_cuda(const at::Tensor& bytes, at::IntArrayRef shape,
                                at::ScalarType dtype);
at::Tensor lossless_decode_meta(const at::Tensor& bytes, c10::SymIntArrayRef shape,
                                at::ScalarType dtype);

// The checked arguments of a call, dense: what every back end begins with.
struct LosslessEncodeCall {
  LosslessPlan plan;
  at::Tensor values;
};
LosslessEncodeCall prepare_lossless_encode(const at::Tensor& x, int64_t level);
struct LosslessDecodeCall {
  LosslessPlan plan;  // of a tensor of this shape and dtype
  at::Tensor bytes;
};
LosslessDecodeCall prepare_lossless_decode(const at::Tensor& bytes, at::IntArrayRef shape,
                                           at::ScalarType dtype);

}  // namespace qvlmem::ops
