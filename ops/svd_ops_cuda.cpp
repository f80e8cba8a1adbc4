// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "kernels/svd/svd_cuda.h"
#include "ops/base/check.h"
#include "ops/svd/svd_device.h"
#include "ops/svd_ops.h"

namespace qvlmem::ops {
namespace {

constexpr int64_t kPanelBytes = int64_t{1} << 26;  // of a product that is still to be rounded

void scan_factor(const at::Tensor& factor, SvdScan* scan) {
  const at::Tensor workspace =
      at::empty({svd_scan_workspace_bytes(factor.numel())}, factor.options().dtype(at::kByte));
  C10_CUDA_CHECK(svd_scan_cuda(
      factor.const_data_ptr(), kernel_dtype("svd_reconstruct", factor.scalar_type()),
      factor.numel(), scan, workspace.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
}

at::Tensor scale_factor(const at::Tensor& factor, bool is_u, const SvdFactorScans& scans) {
  const at::Tensor scaled = at::empty(factor.sizes(), factor.options().dtype(at::kFloat));
  C10_CUDA_CHECK(svd_scale_factor_cuda(
      scans, is_u, factor.const_data_ptr(), kernel_dtype("svd_reconstruct", factor.scalar_type()),
      factor.numel(), scaled.mutable_data_ptr<float>(), c10::cuda::getCurrentCUDAStream()));
  return scaled;
}

void finish_product(const SvdFactorScans& scans, const at::Tensor& product, at::Tensor& y) {
  C10_CUDA_CHECK(svd_finish_product_cuda(
      scans, product.const_data_ptr<float>(), product.numel(), y.mutable_data_ptr(),
      kernel_dtype("svd_reconstruct", y.scalar_type()), c10::cuda::getCurrentCUDAStream()));
}

}  // namespace

// Without a word to the host, so that graphs can be captured.
at::Tensor svd_reconstruct_cuda(const at::Tensor& u, const at::Tensor& v, at::IntArrayRef shape,
                                std::optional<at::ScalarType> dtype) {
  const ReconstructCall call = prepare_svd_reconstruct(u, v, shape, dtype);
  const auto device = svd_device_cuda(u);
  if (call.y.numel() == 0) return call.y;
  const at::Tensor found =
      at::empty({2 * static_cast<int64_t>(sizeof(SvdScan))}, u.options().dtype(at::kByte));
  SvdScan* const scan = static_cast<SvdScan*>(found.mutable_data_ptr());
  const SvdFactorScans scans{scan, scan + 1, call.u.size(1)};
  scan_factor(call.u, scan);
  scan_factor(call.v, scan + 1);
  const at::Tensor left = scale_factor(call.u, true, scans);
  const at::Tensor right = scale_factor(call.v, false, scans);
  const int64_t m = left.size(0), n = right.size(1);
  at::Tensor matrix = call.y.view({m, n});
  if (matrix.scalar_type() == at::kFloat) {
    device->multiply(matrix, left, right);
    finish_product(scans, matrix, matrix);
    return call.y;
  }
  const int64_t row_bytes = n * static_cast<int64_t>(sizeof(float));
  const int64_t rows = std::clamp<int64_t>(kPanelBytes / row_bytes, 1, m);
  const at::Tensor panel = at::empty({rows, n}, left.options());
  for (int64_t row = 0; row < m; row += rows) {
    const int64_t count = std::min(rows, m - row);
    at::Tensor product = panel.narrow(0, 0, count), part = matrix.narrow(0, row, count);
    device->multiply(product, left.narrow(0, row, count), right);
    finish_product(scans, product, part);
  }
  return call.y;
}

}  // namespace qvlmem::ops
