// SPDX-License-Identifier: Apache-2.0
// The codec `bounded`: kernels/bounded/bounded.h over tensors. It has no operator of its own.
//
// params: one, of two bits: kBoundedPerRow where there is a step for each row, else there is one
// for the tensor; kBoundedCoded where the units are those of the coded form.
// parts: step (one each; bfloat16 where that holds those of rows exactly, else float32), bytes
// (int32, of each unit), packed (uint8, the units).
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/bounded/bounded.h"
#include "ops/codec/codec.h"

namespace qvlmem::ops {

constexpr int64_t kBoundedPerRow = 1, kBoundedCoded = 2;  // bits of the param

// As a codec encodes and decodes. On CUDA everything is packed; what is coded is decoded on the
// host.
Payload encode_bounded_cpu(const at::Tensor& x, const CompressOptions& options);
Payload encode_bounded_cuda(const at::Tensor& x, const CompressOptions& options);
at::Tensor decode_bounded_cpu(const Payload& payload, const TensorInfo& info);
at::Tensor decode_bounded_cuda(const Payload& payload, const TensorInfo& info);

// The plan of a tensor of this shape.
BoundedPlan bounded_plan(at::IntArrayRef shape, int64_t param);

// What every back end begins with: x is dense, steps are 1 and bytes not yet written, both where x
// is.
struct BoundedCall {
  int64_t param;
  BoundedTarget target;
  BoundedPlan plan;
  at::Tensor values, step, bytes;
};
BoundedCall prepare_bounded(const at::Tensor& x, const CompressOptions& options);

// Raises what a search has found to be wrong.
void check_bounded_found(Status found, const at::Tensor& x, const BoundedTarget& target);

}  // namespace qvlmem::ops
