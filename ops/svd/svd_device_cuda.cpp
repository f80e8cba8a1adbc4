// SPDX-License-Identifier: Apache-2.0
// svd's calls of cuBLAS and cuSOLVER, and its own kernels.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <cstddef>
#include <optional>

#include "kernels/svd/svd_cuda.h"
#include "ops/base/check.h"
#include "ops/base/device_flag.h"
#include "ops/svd/blas_device.h"
#include "ops/svd/linalg_cuda.h"

namespace qvlmem::ops {
namespace {

constexpr cublasFillMode_t kUpper = CUBLAS_FILL_MODE_UPPER;
constexpr cusolverEigMode_t kVectors = CUSOLVER_EIG_MODE_VECTOR;

cublasOperation_t operation(bool transpose) { return transpose ? CUBLAS_OP_T : CUBLAS_OP_N; }

class CudaSvdDevice final : public BlasDevice {
 public:
  explicit CudaSvdDevice(const at::Tensor& x)
      : BlasDevice(x.device()), guard_(x.device()), stream_(c10::cuda::getCurrentCUDAStream()) {}

  at::Tensor random_signs(uint64_t seed, uint16_t stream, int64_t rows, int64_t cols) override {
    const at::Tensor signs = at::empty({rows, cols}, options().dtype(at::kFloat));
    C10_CUDA_CHECK(
        svd_random_signs_cuda(seed, stream, rows * cols, signs.mutable_data_ptr<float>(), stream_));
    return signs;
  }

  at::Tensor scan(const at::Tensor& x) override {
    check_not_capturing("svd");
    const at::TensorOptions bytes = options().dtype(at::kByte);
    const at::Tensor workspace = at::empty({svd_scan_workspace_bytes(x.numel())}, bytes);
    const at::Tensor found = at::empty({static_cast<int64_t>(sizeof(SvdScan))}, bytes);
    C10_CUDA_CHECK(svd_scan_cuda(x.const_data_ptr(), kernel_dtype("svd", x.scalar_type()),
                                 x.numel(), static_cast<SvdScan*>(found.mutable_data_ptr()),
                                 workspace.mutable_data_ptr(), stream_));
    static_assert(offsetof(SvdScan, sum_squares) == 0 && offsetof(SvdScan, magnitude_bits) == 8);
    return at::cat({found.narrow(0, 0, 8).view(at::kDouble),
                    found.narrow(0, 8, 4).view(at::kFloat).to(at::kDouble)});
  }

  std::vector<double> read(const std::vector<at::Tensor>& values) override {
    check_not_capturing("svd");
    return BlasDevice::read(values);
  }

 private:
  void run(const Gemm<float>& g) override {
    const CublasHandle handle;
    check_cublas(cublasSgemm(handle, operation(g.transpose_a), operation(g.transpose_b), g.m, g.n,
                             g.k, &g.alpha, g.a, g.lda, g.b, g.ldb, &g.beta, g.c, g.ldc),
                 "cublasSgemm");
  }

  void run(const Gemm<double>& g) override {
    const CublasHandle handle;
    check_cublas(cublasDgemm(handle, operation(g.transpose_a), operation(g.transpose_b), g.m, g.n,
                             g.k, &g.alpha, g.a, g.lda, g.b, g.ldb, &g.beta, g.c, g.ldc),
                 "cublasDgemm");
  }

  void syrk(bool transpose, int n, int k, const double* a, int lda, double* c, int ldc) override {
    const double one = 1.0;
    const CublasHandle handle;
    check_cublas(
        cublasDsyrk(handle, kUpper, operation(!transpose), n, k, &one, a, lda, &one, c, ldc),
        "cublasDsyrk");
  }

  void syevd(int n, double* a, double* values, int32_t* info) override {
    if (!solver_) solver_.emplace(stream_);
    int count = 0;
    check_cusolver(
        cusolver().Dsyevd_bufferSize(*solver_, kVectors, kUpper, n, a, n, values, &count),
        "cusolverDnDsyevd_bufferSize");
    if (!workspace_.defined() || workspace_.numel() < count) {
      workspace_ = at::empty({count}, options().dtype(at::kDouble));
    }
    check_cusolver(cusolver().Dsyevd(*solver_, kVectors, kUpper, n, a, n, values,
                                     workspace_.mutable_data_ptr<double>(), count, info),
                   "cusolverDnDsyevd");
  }

  const c10::cuda::CUDAGuard guard_;
  const c10::cuda::CUDAStream stream_;
  std::optional<CusolverHandle> solver_;
  at::Tensor workspace_;  // of the largest eigenproblem so far
};

}  // namespace

std::unique_ptr<SvdDevice> svd_device_cuda(const at::Tensor& x) {
  return std::make_unique<CudaSvdDevice>(x);
}

}  // namespace qvlmem::ops
