// SPDX-License-Identifier: Apache-2.0
// Dense linear algebra whose every sum is taken in one order, whatever the number of threads: BLAS
// and LAPACK split sums among threads as they see fit, so here each call of theirs runs on one
// thread, on a tile that depends on the shapes alone, and the tiles run in parallel.
//
// Matrices are CPU tensors, float32 or float64, with unit stride along rows or columns. BLAS is the
// one that PyTorch's CPU library carries, called directly: float32 stays float32 under autocast and
// under torch.set_float32_matmul_precision.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace qvlmem::ops {

// out = alpha * a b + beta * out. out [m, n] has unit stride along rows; a [m, k], b [k, n]; all of
// one dtype.
void multiply(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha = 1.0,
              double beta = 0.0);
// a b, as a new row-major matrix.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

// y y^T in float64, its lower triangle alone. y [l, k] has unit stride along rows.
at::Tensor gram(const at::Tensor& y);

// Eigenvalues of a symmetric float64 matrix (lower triangle read), descending, and in row i of
// `vectors` the eigenvector of values[i].
struct Eigen {
  std::vector<double> values;
  at::Tensor vectors;
};
Eigen eigen_descending(const at::Tensor& symmetric);

// The sum of squares of y's elements. y has unit stride along rows.
double energy(const at::Tensor& y);

}  // namespace qvlmem::ops
