// SPDX-License-Identifier: Apache-2.0
// What the factorisation asks of a device. The algorithm (range_finder.h, low_rank.h) is one text
// for all of them.
//
// Matrices are tensors on that device, float32 or float64, with unit stride along rows or columns.
// Results are the same for the same arguments, in every call. Nothing waits for the device but
// `read`.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace qvlmem::ops {

// Of a symmetric matrix.
struct Eigen {
  at::Tensor values;     // float64, descending
  at::Tensor ascending;  // row i is the eigenvector of the i-th smallest

  // The eigenvectors of the `count` largest eigenvalues, in their order, as rows of a new matrix.
  at::Tensor leading(int64_t count) const;
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
  // out, of any dtype, becomes a b, with no memory beyond a panel of it. `finish`, where there is
  // one, may change each panel before it is rounded to out. out may be the first rows of b.
  void multiply_in_panels(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                          const std::function<void(at::Tensor& panel)>& finish = nullptr);

  // y y^T in float64, its lower triangle alone. y [l, k].
  virtual at::Tensor gram(const at::Tensor& y) = 0;

  // Of a symmetric float64 matrix, row-major, whose lower triangle is read and whose memory the
  // eigenvectors take.
  virtual Eigen eigen_descending(at::Tensor symmetric) = 0;

  // The sum of squares of y's elements, float64 and 0-d. y has unit stride along rows.
  virtual at::Tensor energy(const at::Tensor& y) = 0;

  // rows * cols signs of svd_random_signs as float32 [rows, cols].
  virtual at::Tensor random_signs(uint64_t seed, uint16_t stream, int64_t rows, int64_t cols) = 0;

  // float64 [2]: the sum of squares of x's elements and their largest magnitude, which is not
  // finite where x is not. x: float32, float16 or bfloat16, contiguous.
  virtual at::Tensor scan(const at::Tensor& x) = 0;

  // The elements of float64 tensors, in order. An error where what they depend on failed.
  virtual std::vector<double> read(const std::vector<at::Tensor>& values) = 0;
  // Whether `read` waits for nothing.
  virtual bool reads_at_once() const { return false; }

  // Whether memory that is not written to costs nothing.
  virtual bool reserves_freely() const { return false; }
  // Of a matrix that is held in parts: of x in another dtype, of a product to be rounded.
  virtual int64_t panel_bytes() const { return int64_t{1} << 26; }
  // Tiles of a product that are computed at a time.
  virtual int64_t tiles_at_a_time() const { return 1; }
  // How many lines of line_bytes a panel has: whole tiles.
  int64_t panel_depth(int64_t line_bytes) const;

 private:
  // multiply, where neither out nor the inner dimension is empty.
  virtual void gemm(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
                    double beta) = 0;
};

// What a device may cut products into: so that panels, which are multiples of it, do not change a
// bit of them.
constexpr int64_t kProductTile = 256;

std::unique_ptr<SvdDevice> svd_device_cpu(const at::Tensor& x);
// Makes x's device the current one while it lives. RuntimeError while a graph is captured: the rank
// must reach the host.
std::unique_ptr<SvdDevice> svd_device_cuda(const at::Tensor& x);

}  // namespace qvlmem::ops
