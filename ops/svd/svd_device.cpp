// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/svd_device.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace qvlmem::ops {

at::Tensor Eigen::leading(int64_t count) const {
  return ascending.narrow(0, ascending.size(0) - count, count).flip(0);
}

void SvdDevice::multiply(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
                         double beta) {
  if (out.numel() == 0) return;
  if (a.size(1) == 0) {  // BLAS leaves out as it is
    beta == 0.0 ? out.zero_() : out.mul_(beta);
  } else {
    gemm(out, a, b, alpha, beta);
  }
}

at::Tensor SvdDevice::product(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  multiply(out, a, b);
  return out;
}

void SvdDevice::multiply_in_panels(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                                   const std::function<void(at::Tensor& panel)>& finish) {
  const bool in_place = out.is_alias_of(b);
  if (!in_place && !finish && out.scalar_type() == a.scalar_type()) {
    multiply(out, a, b);
    return;
  }
  const int dim = out.size(0) < out.size(1) || in_place ? 1 : 0;
  const int64_t length = out.size(dim), width = out.size(1 - dim);
  if (out.numel() == 0) return;
  const int64_t depth =
      std::min(length, panel_depth(width * static_cast<int64_t>(a.element_size())));
  const at::Tensor memory = at::empty({depth * width}, a.options());
  for (int64_t begin = 0; begin < length; begin += depth) {
    const int64_t count = std::min(depth, length - begin);
    at::Tensor part = out.narrow(dim, begin, count);
    at::Tensor panel = memory.narrow(0, 0, part.numel()).view(part.sizes());
    multiply(panel, dim == 0 ? a.narrow(0, begin, count) : a,
             dim == 1 ? b.narrow(1, begin, count) : b);
    if (finish) finish(panel);
    part.copy_(panel);
  }
}

int64_t SvdDevice::panel_depth(int64_t line_bytes) const {
  return kProductTile * std::max<int64_t>(panel_bytes() / (kProductTile * line_bytes), 1);
}

}  // namespace qvlmem::ops
