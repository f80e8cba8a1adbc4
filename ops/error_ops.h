// SPDX-License-Identifier: Apache-2.0
// How far what came back is from what went in.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/error/error.h"

namespace qvlmem::ops {

// All three errors are 0 for an empty tensor. What counts as what: kernels/error/error.h.
// REQUIRES: x and y are CPU tensors of one shape and of one dtype: float32, float16, bfloat16 or
// float64.
ErrorMeasure measure_error(const at::Tensor& x, const at::Tensor& y);

}  // namespace qvlmem::ops
