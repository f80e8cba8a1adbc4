// SPDX-License-Identifier: Apache-2.0
#include "ops/error_ops.h"

#include <ATen/ATen.h>

#include <cmath>

#include "ops/base/check.h"

namespace qvlmem::ops {

ErrorMeasure measure_error(const at::Tensor& x, const at::Tensor& y) {
  ErrorMeasure error;
  if (x.numel() == 0) return error;
  const MatrixShape shape = matrix_shape(x.sizes());
  const at::Tensor a = x.to(at::kDouble).reshape({shape.rows, shape.cols});
  const at::Tensor d = a - y.to(at::kDouble).reshape({shape.rows, shape.cols});
  const auto ratio = [](const at::Tensor& e, const at::Tensor& n) {
    return at::where(e == 0, at::zeros_like(e), e / n).max().item<double>();
  };
  const at::Tensor e = d.square().sum(1), n = a.square().sum(1);
  error.relative = ratio(e.sum().sqrt(), n.sum().sqrt());
  error.worst_row = ratio(e.sqrt(), n.sqrt());
  error.element = ratio(d.abs().max(), a.abs().max());
  return error;
}

}  // namespace qvlmem::ops
