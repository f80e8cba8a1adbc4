// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/linalg_cuda.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/cuda.h"

namespace qvlmem::ops {
namespace {

// The library whose dependencies hold cuSOLVER: beside PyTorch's CUDA library, or, in a PyTorch
// that was built in one piece, that library itself.
void* open_linalg() {
  Dl_info torch_cuda;
  TORCH_CHECK(
      dladdr(reinterpret_cast<void*>(&at::cuda::getCurrentCUDABlasHandle), &torch_cuda) != 0,
      "qvlmem::svd: PyTorch's CUDA library could not be found");
  const std::string path = torch_cuda.dli_fname;
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  void* library = dlopen((folder + "libtorch_cuda_linalg.so").c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
  TORCH_CHECK(library != nullptr, "qvlmem::svd: ", dlerror());
  return library;
}

template <class F>
F find_in(void* library, const char* name) {
  void* const found = dlsym(library, name);
  TORCH_CHECK(found != nullptr, "qvlmem::svd: ", dlerror());
  return reinterpret_cast<F>(found);
}

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

const Cusolver& cusolver() {
  static const Cusolver functions = [] {
    void* const library = open_linalg();  // for as long as the process runs
    Cusolver f;
    f.Create = find_in<decltype(f.Create)>(library, "cusolverDnCreate");
    f.Destroy = find_in<decltype(f.Destroy)>(library, "cusolverDnDestroy");
    f.SetStream = find_in<decltype(f.SetStream)>(library, "cusolverDnSetStream");
    f.Dsyevd = find_in<decltype(f.Dsyevd)>(library, "cusolverDnDsyevd");
    f.Dsyevd_bufferSize =
        find_in<decltype(f.Dsyevd_bufferSize)>(library, "cusolverDnDsyevd_bufferSize");
    return f;
  }();
  return functions;
}

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
  check_cusolver(cusolver().Create(&handle_), "cusolverDnCreate");
  const cusolverStatus_t status = cusolver().SetStream(handle_, stream);
  if (status != CUSOLVER_STATUS_SUCCESS) cusolver().Destroy(handle_);
  check_cusolver(status, "cusolverDnSetStream");
}

CusolverHandle::~CusolverHandle() { CusolverPool::instance().give(stream_, handle_); }

}  // namespace qvlmem::ops
