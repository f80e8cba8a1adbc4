// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/linalg_cuda.h"

#include <ATen/cuda/CUDAContextLight.h>

#include <mutex>
#include <unordered_map>
#include <vector>

namespace qvlmem::ops {
namespace {

// Handles that no call uses. One takes milliseconds and some memory to make, so they are kept; they
// are never destroyed, for when the process ends CUDA may have gone before them.
class CusolverPool {
 public:
  static CusolverPool& instance() {
    static CusolverPool* const pool = new CusolverPool;
    return *pool;
  }

  // nullptr where there is none.
  cusolverDnHandle_t take(c10::DeviceIndex device) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<cusolverDnHandle_t>& handles = idle_[device];
    if (handles.empty()) return nullptr;
    const cusolverDnHandle_t handle = handles.back();
    handles.pop_back();
    return handle;
  }

  void give(c10::DeviceIndex device, cusolverDnHandle_t handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_[device].push_back(handle);
  }

 private:
  std::mutex mutex_;
  std::unordered_map<c10::DeviceIndex, std::vector<cusolverDnHandle_t>> idle_;
};

}  // namespace

void check_cublas(cublasStatus_t status, const char* call) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "qvlmem::svd: ", call,
              " failed: ", cublasGetStatusString(status));
}

void check_cusolver(cusolverStatus_t status, const char* call) {
  TORCH_CHECK(status == CUSOLVER_STATUS_SUCCESS, "qvlmem::svd: ", call, " failed: status ",
              static_cast<int>(status));
}

CublasHandle::CublasHandle() : handle_(at::cuda::getCurrentCUDABlasHandle()) {
  check_cublas(cublasGetMathMode(handle_, &math_mode_), "cublasGetMathMode");
  check_cublas(cublasSetMathMode(handle_, CUBLAS_DEFAULT_MATH), "cublasSetMathMode");
}

CublasHandle::~CublasHandle() { static_cast<void>(cublasSetMathMode(handle_, math_mode_)); }

CusolverHandle::CusolverHandle(c10::cuda::CUDAStream stream)
    : device_(stream.device_index()), handle_(CusolverPool::instance().take(device_)) {
  if (handle_ == nullptr) check_cusolver(cusolverDnCreate(&handle_), "cusolverDnCreate");
  const cusolverStatus_t status = cusolverDnSetStream(handle_, stream);
  if (status != CUSOLVER_STATUS_SUCCESS) CusolverPool::instance().give(device_, handle_);
  check_cusolver(status, "cusolverDnSetStream");
}

CusolverHandle::~CusolverHandle() { CusolverPool::instance().give(device_, handle_); }

}  // namespace qvlmem::ops
