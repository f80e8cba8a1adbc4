// SPDX-License-Identifier: Apache-2.0
// cuBLAS and cuSOLVER for svd: PyTorch's handles of the one, own handles of the other (PyTorch's
// lie in a library that is loaded only when torch.linalg is used). Every status is checked.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>
#include <cublas_v2.h>
#include <cusolverDn.h>

#include "kernels/base/cuda.h"

namespace qvlmem::ops {

// cuSOLVER's functions, found at the first call: PyTorch loads that library late, and one that this
// library was linked with could not be found by whoever loads it without a run path.
struct Cusolver {
  decltype(&cusolverDnCreate) Create;
  decltype(&cusolverDnDestroy) Destroy;
  decltype(&cusolverDnSetStream) SetStream;
  decltype(&cusolverDnDsyevd) Dsyevd;
  decltype(&cusolverDnDsyevd_bufferSize) Dsyevd_bufferSize;
};

// RuntimeError where there is none.
const Cusolver& cusolver();

// RuntimeError that names the call unless it succeeded.
void check_cublas(cublasStatus_t status, const char* call);
void check_cusolver(cusolverStatus_t status, const char* call);

// PyTorch's handle for the current device and stream while it lives, computing float32 in float32
// whatever the process wants of its own products. PyTorch gives every handle and stream a workspace
// of its own, with which cuBLAS gives the same bits in every run.
class CublasHandle {
 public:
  CublasHandle();
  ~CublasHandle();
  CublasHandle(const CublasHandle&) = delete;
  CublasHandle& operator=(const CublasHandle&) = delete;
  operator cublasHandle_t() const { return handle_; }

 private:
  cublasHandle_t handle_;
  cublasMath_t math_mode_;
};

// A cuSOLVER handle for the stream, which is this object's alone while it lives. The stream's
// device must be the current one.
class CusolverHandle {
 public:
  explicit CusolverHandle(c10::cuda::CUDAStream stream);
  ~CusolverHandle();
  CusolverHandle(const CusolverHandle&) = delete;
  CusolverHandle& operator=(const CusolverHandle&) = delete;
  operator cusolverDnHandle_t() const { return handle_; }

 private:
  c10::cuda::CUDAStream stream_;
  cusolverDnHandle_t handle_ = nullptr;
};

}  // namespace qvlmem::ops
