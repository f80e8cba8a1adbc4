// SPDX-License-Identifier: Apache-2.0
// What the factorisation asks of a device. The algorithm (range_finder.h, low_rank.h) is one text
// for all of them.
//
// Matrices are tensors on that device, float32 or float64, with unit stride along rows or columns.
// Results are the same for the same arguments, in every call. Nothing waits for the device but
// `read` and `scan`.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/svd/svd.h"

namespace qvlmem::ops {

// Eigenvalues of a symmetric matrix, float64 and descending, and in row i of `vectors` the
// eigenvector of values[i].
struct Eigen {
  at::Tensor values, vectors;
};

class SvdDevice {
 public:
  virtual ~SvdDevice() = default;

  // out = alpha * a b + beta * out. out [m, n] has unit stride along rows; a [m, k], b [k, n]; all
  // of one dtype. float32 stays float32 under autocast and torch.set_float32_matmul_precision.
  void multiply(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha = 1.0,
                double beta = 0.0);
  // a b, as a new row-major matrix.
  at::Tensor product(const at::Tensor& a, const at::Tensor& b);

  // y y^T in float64, its lower triangle alone. y [l, k] has unit stride along rows.
  virtual at::Tensor gram(const at::Tensor& y) = 0;

  // Of a symmetric float64 matrix, whose lower triangle is read.
  virtual Eigen eigen_descending(const at::Tensor& symmetric) = 0;

  // The sum of squares of y's elements, float64 and 0-d. y has unit stride along rows.
  virtual at::Tensor energy(const at::Tensor& y) = 0;

  // rows * cols signs of svd_random_signs as float32 [rows, cols].
  virtual at::Tensor random_signs(uint64_t seed, uint16_t stream, int64_t rows, int64_t cols) = 0;

  // Of x: float32, float16 or bfloat16, contiguous.
  virtual SvdScan scan(const at::Tensor& x) = 0;

  // The elements of a float64 tensor, in order. An error where what they depend on failed.
  virtual std::vector<double> read(const at::Tensor& values) = 0;
  // Whether `read` waits for nothing.
  virtual bool reads_at_once() const { return false; }

 private:
  // multiply, where neither out nor the inner dimension is empty.
  virtual void gemm(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
                    double beta) = 0;
};

std::unique_ptr<SvdDevice> svd_device_cpu(const at::Tensor& x);
// Makes x's device the current one while it lives. RuntimeError while a graph is captured: the rank
// must reach the host.
std::unique_ptr<SvdDevice> svd_device_cuda(const at::Tensor& x);

}  // namespace qvlmem::ops
