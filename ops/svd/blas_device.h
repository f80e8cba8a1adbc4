// SPDX-License-Identifier: Apache-2.0
// svd on a device with a BLAS and a LAPACK: what is left to a back end are four calls of theirs,
// the scan and the signs.
#pragma once

#include "ops/svd/svd_device.h"

namespace qvlmem::ops {

class BlasDevice : public SvdDevice {
 public:
  at::Tensor gram(const at::Tensor& y) override;
  Eigen eigen_descending(at::Tensor symmetric) override;
  at::Tensor energy(const at::Tensor& y) override;
  std::vector<double> read(const std::vector<at::Tensor>& values) override;

 protected:
  explicit BlasDevice(at::Device device);

  at::TensorOptions options() const { return options_; }

  // c = alpha * op(a) op(b) + beta * c; by columns, as all of BLAS. op transposes where asked to.
  template <class T>
  struct Gemm {
    bool transpose_a, transpose_b;
    int m, n, k;
    T alpha;
    const T* a;
    int lda;
    const T* b;
    int ldb;
    T beta;
    T* c;
    int ldc;
  };

 private:
  virtual void run(const Gemm<float>& gemm) = 0;
  virtual void run(const Gemm<double>& gemm) = 0;
  // c += op(a)^T op(a), its upper triangle alone. op(a) [k, n], c [n, n].
  virtual void syrk(bool transpose, int n, int k, const double* a, int lda, double* c, int ldc) = 0;
  // The eigenvalues of a [n, n], ascending, by its upper triangle; the eigenvectors become its
  // columns. *info, on the device, becomes 0 unless that fails.
  virtual void syevd(int n, double* a, double* values, int32_t* info) = 0;

  void gemm(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
            double beta) override;
  template <class T>
  void multiply_as(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
                   double beta);

  const at::TensorOptions options_;
  const at::Tensor failed_;  // whether an eigenproblem of this object was not solved
};

}  // namespace qvlmem::ops
