// SPDX-License-Identifier: Apache-2.0
// Tests of CUDA kernels: on a GPU, or on a simulated one (QVLMEM_CUDA_SIM). Without either they
// skip, or fail where QVLMEM_REQUIRE_CUDA=1 asks for one. QVLMEM_CUDA_EXACT=1 has each tensor end
// where its allocation ends, for what stops at the first access past it (the simulator to the byte,
// compute-sanitizer); without it, there are guard bytes, by which a GPU notices writes past it.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace qvlmem {

inline bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && std::strcmp(value, "1") == 0;
}

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error == cudaSuccess && devices > 0) return;
    if (is_set("QVLMEM_REQUIRE_CUDA")) {
      FAIL() << "QVLMEM_REQUIRE_CUDA=1, but there is no CUDA device: " << cudaGetErrorString(error);
    }
    GTEST_SKIP() << "no CUDA device: " << cudaGetErrorString(error);
  }
};

// Device memory, with guard bytes on both sides that must stay as they were. Without them, memory
// of no bytes is a null pointer, as that of an empty tensor.
class DeviceBytes {
 public:
  // shift: bytes that the data begins past an address aligned to 256.
  explicit DeviceBytes(size_t size, size_t shift = 0, int fill = 0xee)
      : size_(size), offset_(guard() + shift) {
    EXPECT_EQ(cudaMalloc(&base_, offset_ + size + guard()), cudaSuccess);
    if (base_ == nullptr) return;
    EXPECT_EQ(cudaMemset(base_, kGuardByte, offset_ + size + guard()), cudaSuccess);
    EXPECT_EQ(cudaMemset(data(), fill, size), cudaSuccess);
  }
  DeviceBytes(const void* host, size_t size, size_t shift = 0) : DeviceBytes(size, shift) {
    write(host);
  }
  ~DeviceBytes() {
    std::vector<uint8_t> all(offset_ + size_ + guard());
    EXPECT_EQ(cudaMemcpy(all.data(), base_, all.size(), cudaMemcpyDeviceToHost), cudaSuccess);
    for (size_t i = 0; i < all.size(); ++i) {
      if (i >= offset_ && i < offset_ + size_) continue;
      if (all[i] == kGuardByte) continue;
      ADD_FAILURE() << "byte " << static_cast<int64_t>(i) - static_cast<int64_t>(offset_) << " of "
                    << size_ << " was written";
      break;
    }
    cudaFree(base_);
  }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  void write(const void* host) {
    EXPECT_EQ(cudaMemcpy(data(), host, size_, cudaMemcpyHostToDevice), cudaSuccess);
  }

  void* data() { return static_cast<char*>(base_) + offset_; }
  template <class T>
  T* as() {
    return static_cast<T*>(data());
  }

  template <class T>
  std::vector<T> read() {
    std::vector<T> host(size_ / sizeof(T));
    EXPECT_EQ(cudaMemcpy(host.data(), data(), host.size() * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return host;
  }

 private:
  static size_t guard() {
    static const size_t bytes = is_set("QVLMEM_CUDA_EXACT") ? 0 : 256;
    return bytes;
  }
  static constexpr uint8_t kGuardByte = 0xa5;
  size_t size_, offset_;
  void* base_ = nullptr;
};

}  // namespace qvlmem
