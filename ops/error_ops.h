// SPDX-License-Identifier: Apache-2.0
// How far what came back is from what went in.
#pragma once

#include <ATen/core/Tensor.h>

namespace qvlmem::ops {

// All three are 0 for an empty tensor; 0/0 counts as 0.
struct ErrorMeasure {
  double relative = 0.0;   // ||x - y|| / ||x|| (Frobenius)
  double worst_row = 0.0;  // the largest of the same over rows (all but the last dimension)
  double element = 0.0;    // max |x - y| / max |x|
};

// REQUIRES: x and y are CPU tensors of one shape and floating dtype.
ErrorMeasure measure_error(const at::Tensor& x, const at::Tensor& y);

}  // namespace qvlmem::ops
