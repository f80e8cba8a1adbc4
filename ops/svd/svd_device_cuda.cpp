// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "kernels/svd/svd_cuda.h"
#include "ops/base/check.h"
#include "ops/base/device_flag.h"
#include "ops/svd/blas_view.h"
#include "ops/svd/linalg_cuda.h"
#include "ops/svd/svd_device.h"

namespace qvlmem::ops {
namespace {

constexpr int64_t kGramBytes = int64_t{1} << 25;  // of float32 made float64 at a time

int blas_size(int64_t size) {
  TORCH_CHECK_VALUE(size <= std::numeric_limits<int>::max(),
                    "qvlmem::svd: expected matrices of at most 2^31 - 1 rows and columns, got ",
                    size);
  return static_cast<int>(size);
}

// BLAS counts by columns: it sees out^T = b^T a^T.
template <class T, class Gemm>
void multiply_by(const Gemm& gemm, const char* name, at::Tensor& out, const at::Tensor& a,
                 const at::Tensor& b, double alpha, double beta) {
  const BlasView<T> left(a), right(b);
  const T scale = static_cast<T>(alpha), keep = static_cast<T>(beta);
  const CublasHandle handle;
  check_cublas(gemm(handle, right.row_major ? CUBLAS_OP_N : CUBLAS_OP_T,
                    left.row_major ? CUBLAS_OP_N : CUBLAS_OP_T, blas_size(b.size(1)),
                    blas_size(a.size(0)), blas_size(a.size(1)), &scale, right.data,
                    blas_size(right.leading), left.data, blas_size(left.leading), &keep,
                    out.mutable_data_ptr<T>(), blas_size(std::max(out.stride(0), b.size(1)))),
               name);
}

class CudaSvdDevice final : public SvdDevice {
 public:
  explicit CudaSvdDevice(const at::Tensor& x)
      : guard_(x.device()),
        stream_(c10::cuda::getCurrentCUDAStream()),
        options_(at::TensorOptions(x.device())),
        failed_(at::zeros({1}, options_.dtype(at::kBool))) {}

  // A row-major lower triangle is BLAS's upper one.
  at::Tensor gram(const at::Tensor& y) override {
    const int64_t rows = y.size(0), cols = y.size(1);
    at::Tensor out = at::zeros({rows, rows}, options_.dtype(at::kDouble));
    if (rows == 0) return out;
    const int64_t most = std::max<int64_t>(kGramBytes / (8 * rows), 1);
    const int64_t depth = y.scalar_type() == at::kDouble ? cols : most;
    for (int64_t begin = 0; begin < cols; begin += depth) {
      const at::Tensor part = y.narrow(1, begin, std::min(depth, cols - begin)).to(at::kDouble);
      const BlasView<double> view(part);
      TORCH_INTERNAL_ASSERT(view.row_major);
      const double one = 1.0;
      const CublasHandle handle;
      check_cublas(cublasDsyrk(handle, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T, blas_size(rows),
                               blas_size(part.size(1)), &one, view.data, blas_size(view.leading),
                               &one, out.mutable_data_ptr<double>(), blas_size(rows)),
                   "cublasDsyrk");
    }
    return out;
  }

  Eigen eigen_descending(const at::Tensor& symmetric) override {
    const int64_t size = symmetric.size(0);
    const at::Tensor vectors = symmetric.clone(at::MemoryFormat::Contiguous);
    const at::Tensor values = at::empty({size}, symmetric.options());
    if (size == 0) return {values, vectors};
    if (!solver_) solver_.emplace(stream_);
    const int n = blas_size(size);
    double* const matrix = vectors.mutable_data_ptr<double>();
    double* const spectrum = values.mutable_data_ptr<double>();
    int count = 0;
    check_cusolver(
        cusolverDnDsyevd_bufferSize(*solver_, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_UPPER, n,
                                    matrix, n, spectrum, &count),
        "cusolverDnDsyevd_bufferSize");
    if (!workspace_.defined() || workspace_.numel() < count) {
      workspace_ = at::empty({count}, symmetric.options());
    }
    const at::Tensor info = at::zeros({1}, options_.dtype(at::kInt));
    check_cusolver(cusolverDnDsyevd(*solver_, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_UPPER, n,
                                    matrix, n, spectrum, workspace_.mutable_data_ptr<double>(),
                                    count, info.mutable_data_ptr<int32_t>()),
                   "cusolverDnDsyevd");
    failed_.logical_or_(info);
    // Ascending; the vectors are columns to LAPACK, and so rows to PyTorch.
    return {values.flip(0), vectors.flip(0)};
  }

  at::Tensor energy(const at::Tensor& y) override {
    return at::linalg_vector_norm(y, 2, std::nullopt, false, at::kDouble).square();
  }

  at::Tensor random_signs(uint64_t seed, uint16_t stream, int64_t rows, int64_t cols) override {
    const at::Tensor signs = at::empty({rows, cols}, options_.dtype(at::kFloat));
    C10_CUDA_CHECK(
        svd_random_signs_cuda(seed, stream, rows * cols, signs.mutable_data_ptr<float>(), stream_));
    return signs;
  }

  SvdScan scan(const at::Tensor& x) override {
    check_not_capturing("svd");
    const at::Tensor workspace =
        at::empty({svd_scan_workspace_bytes(x.numel())}, options_.dtype(at::kByte));
    const at::Tensor found = at::empty({sizeof(SvdScan)}, options_.dtype(at::kByte));
    C10_CUDA_CHECK(svd_scan_cuda(x.const_data_ptr(), kernel_dtype("svd", x.scalar_type()),
                                 x.numel(), static_cast<SvdScan*>(found.mutable_data_ptr()),
                                 workspace.mutable_data_ptr(), stream_));
    const at::Tensor on_host = found.cpu();
    SvdScan result;
    std::memcpy(&result, on_host.const_data_ptr(), sizeof(result));
    return result;
  }

  std::vector<double> read(const at::Tensor& values) override {
    check_not_capturing("svd");
    // Both in one copy.
    const at::Tensor all = at::cat({values.flatten(), failed_.to(at::kDouble)}).cpu();
    const double* const first = all.const_data_ptr<double>();
    const int64_t count = values.numel();
    TORCH_CHECK(first[count] == 0, "qvlmem::svd: cusolverDnDsyevd did not converge");
    return {first, first + count};
  }

 private:
  void gemm(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
            double beta) override {
    if (out.scalar_type() == at::kDouble) {
      multiply_by<double>(cublasDgemm, "cublasDgemm", out, a, b, alpha, beta);
    } else {
      multiply_by<float>(cublasSgemm, "cublasSgemm", out, a, b, alpha, beta);
    }
  }

  const c10::cuda::CUDAGuard guard_;
  const c10::cuda::CUDAStream stream_;
  const at::TensorOptions options_;
  const at::Tensor failed_;  // whether an eigenproblem of this object was not solved
  std::optional<CusolverHandle> solver_;
  at::Tensor workspace_;  // of the largest eigenproblem so far
};

}  // namespace

std::unique_ptr<SvdDevice> svd_device_cuda(const at::Tensor& x) {
  return std::make_unique<CudaSvdDevice>(x);
}

}  // namespace qvlmem::ops
