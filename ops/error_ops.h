// SPDX-License-Identifier: Apache-2.0
// How far what came back is from what went in.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/error/error.h"

namespace qvlmem::ops {

// All three errors are 0 for an empty tensor. What counts as what: kernels/error/error.h.
// REQUIRES: x and y are of one shape, on one device and of one dtype: float32, float16, bfloat16 or
// float64.
ErrorMeasure measure_error_cpu(const at::Tensor& x, const at::Tensor& y);
// The same numbers, bit by bit. Waits for the stream.
ErrorMeasure measure_error_cuda(const at::Tensor& x, const at::Tensor& y);

// What every back end begins with.
ErrorPlan prepare_error(const at::Tensor& x, const at::Tensor& y);

}  // namespace qvlmem::ops
