// SPDX-License-Identifier: Apache-2.0
// qvlmem::to_fp16 and qvlmem::from_fp16. How the scale is chosen: kernels/half/half.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "kernels/half/half.h"

namespace qvlmem::ops {

// x: float32, float16, bfloat16 or float64, any shape and strides. Returns half, of x's shape, and
// scale, of shape [], float64 for float64 x, else float32. TypeError for another dtype.
std::tuple<at::Tensor, at::Tensor> to_fp16_cpu(const at::Tensor& x);
std::tuple<at::Tensor, at::Tensor> to_fp16_cuda(const at::Tensor& x);
std::tuple<at::Tensor, at::Tensor> to_fp16_meta(const at::Tensor& x);

// half * scale, contiguous, of half's shape, in `dtype`: one of those that to_fp16 takes, float32
// where none is given. scale: one element, float32 or float64, of any shape.
at::Tensor from_fp16_cpu(const at::Tensor& half, const at::Tensor& scale,
                         std::optional<at::ScalarType> dtype);
at::Tensor from_fp16_cuda(const at::Tensor& half, const at::Tensor& scale,
                          std::optional<at::ScalarType> dtype);
at::Tensor from_fp16_meta(const at::Tensor& half, const at::Tensor& scale,
                          std::optional<at::ScalarType> dtype);

// The checked arguments of a call, dense, and its outputs, on the device of the inputs and not yet
// written: what every back end begins with.
struct HalfEncodeCall {
  HalfPlan plan;
  at::Tensor x, half, scale;
};
HalfEncodeCall prepare_to_fp16(const at::Tensor& x);
struct HalfDecodeCall {
  HalfPlan plan;
  at::Tensor half, y;
};
HalfDecodeCall prepare_from_fp16(const at::Tensor& half, const at::Tensor& scale,
                                 std::optional<at::ScalarType> dtype);

}  // namespace qvlmem::ops
