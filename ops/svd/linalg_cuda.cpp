// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/linalg_cuda.h"

#include <ATen/cuda/CUDAContextLight.h>

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/base/cuda.h"

namespace qvlmem::ops {
namespace {

// Handles that no call uses, each for its stream: what it was last used for may still be running.
// One takes milliseconds and some memory to make, so they are kept; they are never destroyed, for
// when the process ends CUDA may have gone before them.
class CusolverPool {
 public:
  static CusolverPool& instance() {
    static CusolverPool* const pool = new CusolverPool;
    return *pool;
  }

  // nullptr where there is none.
  cusolverDnHandle_t take(c10::cuda::CUDAStream stream) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<cusolverDnHandle_t>& handles = idle_[key(stream)];
    if (handles.empty()) return nullptr;
    const cusolverDnHandle_t handle = handles.back();
    handles.pop_back();
    return handle;
  }

  void give(c10::cuda::CUDAStream stream, cusolverDnHandle_t handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_[key(stream)].push_back(handle);
  }

 private:
  using Key = std::pair<c10::DeviceIndex, cudaStream_t>;
  static Key key(c10::cuda::CUDAStream stream) { return {stream.device_index(), stream.stream()}; }

  std::mutex mutex_;
  std::map<Key, std::vector<cusolverDnHandle_t>> idle_;
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
    : stream_(stream), handle_(CusolverPool::instance().take(stream)) {
  if (handle_ != nullptr) return;
  check_cusolver(cusolverDnCreate(&handle_), "cusolverDnCreate");
  const cusolverStatus_t status = cusolverDnSetStream(handle_, stream);
  if (status != CUSOLVER_STATUS_SUCCESS) cusolverDnDestroy(handle_);
  check_cusolver(status, "cusolverDnSetStream");
}

CusolverHandle::~CusolverHandle() { CusolverPool::instance().give(stream_, handle_); }

}  // namespace qvlmem::ops
