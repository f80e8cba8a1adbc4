// SPDX-License-Identifier: Apache-2.0
// A tensor as a matrix that can be factored: finite, and of a scale at which float32 holds products
// of a few values and sums of many. Whether it is so is told by a scan, for which a device that
// must be waited for is not: x is taken to be so until the scan is read, with the first thing that
// is.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>

#include "ops/svd/svd_device.h"

namespace qvlmem::ops {

constexpr int64_t kMostRows = std::numeric_limits<int>::max();  // and columns: BLAS counts in int

// x = a * 2^exponent.
class SvdMatrix {
 public:
  // Thrown where the scan, read at last, tells that x has no energy, or had to be scaled: what was
  // computed from a before is of no use.
  struct Changed {};

  // x: float32, float16 or bfloat16, any strides. dtype: a's. ValueError for more rows or columns
  // than BLAS counts, and (also from `learn`) for NaN and infinities.
  SvdMatrix(SvdDevice& device, const at::Tensor& x, at::ScalarType dtype);

  int64_t rows() const { return values_.size(0); }
  int64_t cols() const { return values_.size(1); }
  at::ScalarType dtype() const { return dtype_; }
  at::TensorOptions options() const { return x_.options().dtype(dtype_); }
  at::ScalarType original_dtype() const { return x_.scalar_type(); }

  // out [l, n] = left a, with no memory beyond a panel of a.
  void multiply(at::Tensor& out, const at::Tensor& left) const { multiply(out, left, false); }
  // out [l, m] = left a^T, likewise.
  void multiply_transposed(at::Tensor& out, const at::Tensor& left) const {
    multiply(out, left, true);
  }
  // out [m, n] = a
  void copy_to(at::Tensor& out) const;
  // a, row-major: x itself where that is a, or else a copy.
  at::Tensor whole() const;

  // Whether the scan has been read: where reading waits for nothing, at once.
  bool is_known() const { return is_known_; }
  const at::Tensor& scan() const { return scan_; }
  void learn(const double* scan);  // the two values of scan(). REQUIRES: !is_known()
  // REQUIRES: is_known()
  double energy() const { return energy_; }  // ||a||^2
  int exponent() const { return exponent_; }

 private:
  // Whether a, or that it has energy, was taken for granted wrongly.
  bool settle(const double* scan);
  bool is_x() const { return x_.scalar_type() == dtype_ && exponent_ == 0; }
  // Elements [begin, begin + out.size(dim)) of a along dim.
  void copy_part(at::Tensor& out, int64_t dim, int64_t begin) const;
  void multiply(at::Tensor& out, const at::Tensor& left, bool transposed) const;

  SvdDevice& device_;
  const at::ScalarType dtype_;
  const at::Tensor x_, values_;  // the same, as rows and columns
  at::Tensor scan_;
  bool is_known_ = false;
  double energy_ = 0;
  int exponent_ = 0;
};

// factor(matrix) of x as a matrix; of_zero() where x has no energy.
template <class Result, class OfZero, class Factor>
Result factor_matrix(SvdDevice& device, const at::Tensor& x, at::ScalarType dtype,
                     const OfZero& of_zero, const Factor& factor) {
  SvdMatrix matrix(device, x, dtype);
  for (;;) {
    if (matrix.is_known() && matrix.energy() == 0) return of_zero();
    try {
      return factor(matrix);
    } catch (const SvdMatrix::Changed&) {  // once at most: the matrix is known then
    }
  }
}

}  // namespace qvlmem::ops
