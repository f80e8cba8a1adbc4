// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/svd_matrix.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/checked.h"
#include "ops/base/check.h"

namespace qvlmem::ops {
namespace {

// Products of a few values and sums of many stay inside float32 from 2^-64 to 2^64.
constexpr int kMostExponent = 64;

at::Tensor as_matrix(const at::Tensor& x) {
  const MatrixShape shape = matrix_shape(x.sizes());
  TORCH_CHECK_VALUE(shape.rows <= kMostRows && shape.cols <= kMostRows,
                    "qvlmem::svd: expected x to be a matrix of at most 2^31 - 1 rows and columns, "
                    "got ",
                    describe(x));
  return x.detach().contiguous().view({shape.rows, shape.cols});
}

}  // namespace

SvdMatrix::SvdMatrix(SvdDevice& device, const at::Tensor& x, at::ScalarType dtype)
    : device_(device), dtype_(dtype), x_(x), values_(as_matrix(x)) {
  scan_ = device.scan(values_);
  if (device.reads_at_once()) settle(device.read({scan_}).data());
}

void SvdMatrix::copy_part(at::Tensor& out, int64_t dim, int64_t begin) const {
  out.copy_(values_.narrow(dim, begin, out.size(dim)));
  if (exponent_ != 0) out.mul_(std::ldexp(1.0, -exponent_));
}

void SvdMatrix::copy_to(at::Tensor& out) const { copy_part(out, 0, 0); }

at::Tensor SvdMatrix::whole() const {
  if (is_x()) return values_;
  at::Tensor a = at::empty(values_.sizes(), options());
  copy_to(a);
  return a;
}

// Panels are cut along the longer dimension, of as many tiles as are computed at a time. Where the
// product sums over that dimension, they are added in steps that do not depend on how many threads
// there are.
void SvdMatrix::multiply(at::Tensor& out, const at::Tensor& left, bool transposed) const {
  if (is_x()) {
    device_.multiply(out, left, transposed ? values_.t() : values_);
    return;
  }
  const int64_t dim = rows() < cols() ? 1 : 0;
  const int64_t length = values_.size(dim), width = values_.size(1 - dim);
  const bool sums = transposed == (dim == 1);
  const int64_t step = device_.panel_depth(width * options().dtype().itemsize());
  const int64_t depth = step * ceil_div(device_.tiles_at_a_time() * kProductTile, step);
  const at::Tensor memory = at::empty({std::min(depth, length) * width}, options());
  for (int64_t begin = 0; begin < length; begin += depth) {
    const int64_t count = std::min(depth, length - begin);
    at::Tensor panel =
        memory.narrow(0, 0, count * width)
            .view(dim == 0 ? at::IntArrayRef{count, width} : at::IntArrayRef{width, count});
    copy_part(panel, dim, begin);
    if (!sums) {
      at::Tensor part = out.narrow(1, begin, count);
      device_.multiply(part, left, transposed ? panel.t() : panel);
      continue;
    }
    for (int64_t done = 0; done < count; done += step) {
      const int64_t n = std::min(step, count - done), first = begin + done;
      const at::Tensor piece = panel.narrow(dim, done, n);
      device_.multiply(out, left.narrow(1, first, n), transposed ? piece.t() : piece, 1.0,
                       first == 0 ? 0.0 : 1.0);
    }
  }
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
    energy_ = std::ldexp(energy_, -2 * exponent_);
  }
  return true;
}

}  // namespace qvlmem::ops
