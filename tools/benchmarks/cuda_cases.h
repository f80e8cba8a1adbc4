// SPDX-License-Identifier: Apache-2.0
// What cuda_kernels measures: one call each, on memory that is in place.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace qvlmem::bench {

inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

class DeviceMemory {
 public:
  explicit DeviceMemory(int64_t bytes) {
    check(cudaMalloc(&data_, static_cast<size_t>(bytes) + 16));
  }
  ~DeviceMemory() { cudaFree(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

struct CudaCase {
  std::string name;
  int64_t elements;
  double bytes_read,
      bytes_written;          // what the kernels ask of memory, both passes where there are two
  std::function<void()> run;  // on the default stream
};

// Rows of 4096 normal values, about `elements` of them.
std::vector<CudaCase> cuda_cases(int64_t elements);

}  // namespace qvlmem::bench
