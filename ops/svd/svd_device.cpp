// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/svd_device.h"

#include <ATen/ops/empty.h>

namespace qvlmem::ops {

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

}  // namespace qvlmem::ops
