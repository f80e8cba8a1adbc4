// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/blas_device.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "ops/svd/blas_view.h"

namespace qvlmem::ops {
namespace {

constexpr int64_t kGramBytes = int64_t{1} << 25;  // of float32 made float64 at a time

int blas_size(int64_t size) {
  TORCH_CHECK_VALUE(size <= std::numeric_limits<int>::max(),
                    "qvlmem::svd: expected matrices of at most 2^31 - 1 rows and columns, got ",
                    size);
  return static_cast<int>(size);
}

}  // namespace

BlasDevice::BlasDevice(at::Device device)
    : options_(at::TensorOptions(device)), failed_(at::zeros({1}, options_.dtype(at::kBool))) {}

// BLAS sees out^T = b^T a^T.
template <class T>
void BlasDevice::multiply_as(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                             double alpha, double beta) {
  const BlasView<T> left(a), right(b);
  run(Gemm<T>{!right.row_major, !left.row_major, blas_size(b.size(1)), blas_size(a.size(0)),
              blas_size(a.size(1)), static_cast<T>(alpha), right.data, blas_size(right.leading),
              left.data, blas_size(left.leading), static_cast<T>(beta), out.mutable_data_ptr<T>(),
              blas_size(std::max(out.stride(0), b.size(1)))});
}

void BlasDevice::gemm(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
                      double beta) {
  if (out.scalar_type() == at::kDouble) {
    multiply_as<double>(out, a, b, alpha, beta);
  } else {
    multiply_as<float>(out, a, b, alpha, beta);
  }
}

// The lower triangle of rows is BLAS's upper one of columns.
at::Tensor BlasDevice::gram(const at::Tensor& y) {
  const int64_t rows = y.size(0), cols = y.size(1);
  const at::Tensor out = at::zeros({rows, rows}, options_.dtype(at::kDouble));
  if (rows == 0) return out;
  const int64_t most = std::max<int64_t>(kGramBytes / (8 * rows), 1);
  const int64_t depth = y.scalar_type() == at::kDouble ? std::max<int64_t>(cols, 1) : most;
  for (int64_t begin = 0; begin < cols; begin += depth) {
    const at::Tensor part = y.narrow(1, begin, std::min(depth, cols - begin)).to(at::kDouble);
    const BlasView<double> view(part);
    syrk(!view.row_major, blas_size(rows), blas_size(part.size(1)), view.data,
         blas_size(view.leading), out.mutable_data_ptr<double>(), blas_size(rows));
  }
  return out;
}

Eigen BlasDevice::eigen_descending(at::Tensor symmetric) {
  const int64_t size = symmetric.size(0);
  const at::Tensor values = at::empty({size}, symmetric.options());
  if (size == 0) return {values, symmetric};
  // The host may not have seen yet that x is not finite, or too large for its products to be. Of
  // that solvers promise nothing, not even to end.
  at::nan_to_num_(symmetric, 0.0, 0.0, 0.0);
  const at::Tensor info = at::zeros({1}, options_.dtype(at::kInt));
  syevd(blas_size(size), symmetric.mutable_data_ptr<double>(), values.mutable_data_ptr<double>(),
        info.mutable_data_ptr<int32_t>());
  failed_.logical_or_(info);
  // The vectors are columns to LAPACK, and so rows to PyTorch.
  return {values.flip(0), symmetric};
}

at::Tensor BlasDevice::energy(const at::Tensor& y) {
  return at::linalg_vector_norm(y, 2, std::nullopt, false, at::kDouble).square();
}

std::vector<double> BlasDevice::read(const std::vector<at::Tensor>& values) {
  // All in one copy.
  std::vector<at::Tensor> flat{failed_.to(at::kDouble)};
  for (const at::Tensor& each : values) flat.push_back(each.flatten());
  const at::Tensor all = at::cat(flat).cpu();
  const double* const first = all.const_data_ptr<double>();
  TORCH_CHECK(first[0] == 0, "qvlmem::svd: an eigenproblem was not solved");
  return {first + 1, first + all.numel()};
}

}  // namespace qvlmem::ops
