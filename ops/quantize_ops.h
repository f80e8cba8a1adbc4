// SPDX-License-Identifier: Apache-2.0
// qvlmem::quantize and qvlmem::dequantize. Layout and formulas: kernels/quantize/quantize.h.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <optional>
#include <tuple>

#include "kernels/quantize/quantize.h"

namespace qvlmem::ops {

// x: float32, float16 or bfloat16, any shape and strides. Returns q, scale, zero_point (empty where
// symmetric). ValueError for bits, group_size or values that are not finite; TypeError for the
// dtype.
std::tuple<at::Tensor, at::Tensor, at::Tensor> quantize_cpu(const at::Tensor& x, int64_t bits,
                                                            bool symmetric, int64_t group_size,
                                                            std::optional<int64_t> rounding_seed);
std::tuple<at::Tensor, at::Tensor, at::Tensor> quantize_cuda(const at::Tensor& x, int64_t bits,
                                                             bool symmetric, int64_t group_size,
                                                             std::optional<int64_t> rounding_seed);
std::tuple<at::Tensor, at::Tensor, at::Tensor> quantize_meta(const at::Tensor& x, int64_t bits,
                                                             bool symmetric, int64_t group_size,
                                                             std::optional<int64_t> rounding_seed);

// The inverse, contiguous, of `shape` and `dtype` (float32 where none is given).
at::Tensor dequantize_cpu(const at::Tensor& q, const at::Tensor& scale,
                          const at::Tensor& zero_point, at::IntArrayRef shape, int64_t bits,
                          int64_t group_size, std::optional<at::ScalarType> dtype);
at::Tensor dequantize_cuda(const at::Tensor& q, const at::Tensor& scale,
                           const at::Tensor& zero_point, at::IntArrayRef shape, int64_t bits,
                           int64_t group_size, std::optional<at::ScalarType> dtype);
at::Tensor dequantize_meta(const at::Tensor& q, const at::Tensor& scale,
                           const at::Tensor& zero_point, c10::SymIntArrayRef shape, int64_t bits,
                           int64_t group_size, std::optional<at::ScalarType> dtype);

// Whether no value is NaN or infinite: the first pass of quantize alone, without a temporary. x:
// float32, float16 or bfloat16.
bool all_finite_cpu(const at::Tensor& x);
bool all_finite_cuda(const at::Tensor& x);

// Raises unless the three parts are what quantize makes of a tensor of this shape.
void check_quantized(const char* op, const at::Tensor& q, const at::Tensor& scale,
                     const at::Tensor& zero_point, at::IntArrayRef shape, int64_t bits,
                     int64_t group_size);

// The checked arguments of a call, dense, and its outputs, on the device of the inputs and not yet
// written: what every back end begins with.
struct QuantizeCall {
  QuantizePlan plan;
  at::Tensor q, scale, zero_point;
};
QuantizeCall prepare_quantize(const at::Tensor& x, int64_t bits, bool symmetric,
                              int64_t group_size);
struct DequantizeCall {
  QuantizePlan plan;
  at::Tensor q, scale, zero_point, y;
};
DequantizeCall prepare_dequantize(const at::Tensor& q, const at::Tensor& scale,
                                  const at::Tensor& zero_point, at::IntArrayRef shape, int64_t bits,
                                  int64_t group_size, std::optional<at::ScalarType> dtype);

}  // namespace qvlmem::ops
