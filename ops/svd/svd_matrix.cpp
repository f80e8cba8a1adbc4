// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/svd_matrix.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/base/check.h"

namespace qvlmem::ops {
namespace {

// Products of a few values and sums of many stay inside float32 from 2^-64 to 2^64.
constexpr int kMostExponent = 64;

}  // namespace

SvdMatrix::SvdMatrix(SvdDevice& device, const at::Tensor& x, at::ScalarType dtype) : x_(x) {
  const MatrixShape shape = matrix_shape(x.sizes());
  TORCH_CHECK_VALUE(shape.rows <= kMostRows && shape.cols <= kMostRows,
                    "qvlmem::svd: expected x to be a matrix of at most 2^31 - 1 rows and columns, "
                    "got ",
                    describe(x));
  const at::Tensor values = x.detach().contiguous().view({shape.rows, shape.cols});
  scan_ = device.scan(values);
  a_ = values.to(dtype);
  if (device.reads_at_once()) settle(device.read({scan_}).data());
}

void SvdMatrix::learn(const double* scan) {
  if (settle(scan)) throw Changed();
}

bool SvdMatrix::settle(const double* scan) {
  const double sum_squares = scan[0], magnitude = scan[1];
  if (!std::isfinite(magnitude)) throw_non_finite("svd", x_);
  is_known_ = true;
  energy_ = sum_squares;
  const int exponent = std::ilogb(std::max(magnitude, 0x1p-149));
  if (sum_squares > 0 && std::abs(exponent) <= kMostExponent) return false;
  if (sum_squares > 0) {
    exponent_ = std::clamp(exponent, -126, 126);
    const double scale = std::ldexp(1.0, -exponent_);
    a_ = a_.is_alias_of(x_) ? a_.mul(scale) : a_.mul_(scale);
    energy_ = std::ldexp(energy_, -2 * exponent_);
  }
  return true;
}

}  // namespace qvlmem::ops
