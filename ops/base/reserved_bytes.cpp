// SPDX-License-Identifier: Apache-2.0
#include "ops/base/reserved_bytes.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <c10/core/impl/alloc_cpu.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "ops/base/output.h"

namespace qvlmem::ops {

ReservedBytes::ReservedBytes(int64_t bytes)
    : data_(
          static_cast<uint8_t*>(c10::alloc_cpu(static_cast<size_t>(std::max<int64_t>(bytes, 1))))),
      bytes_(bytes) {}

ReservedBytes::~ReservedBytes() { c10::free_cpu(data_); }

void ReservedBytes::expect(int64_t end) {
  end = std::min(end, bytes_);
  if (end - expected_ < int64_t{kHugePage}) return;
  const uint8_t* const told = ask_for_huge_pages(data_ + expected_, data_ + end);
  expected_ = told - data_;
}

at::Tensor ReservedBytes::take(int64_t count, at::ScalarType dtype) {
  const size_t size = static_cast<size_t>(count) * c10::elementSize(dtype);
  // alloc_cpu's memory is malloc's, and realloc gives the tail back where it lies.
  void* shrunk = std::realloc(data_, std::max<size_t>(size, 1));
  if (shrunk != nullptr) data_ = static_cast<uint8_t*>(shrunk);
  if (reinterpret_cast<uintptr_t>(data_) % c10::gAlignment != 0) {  // moved, as under a sanitizer
    at::Tensor copy = at::empty({count}, dtype);
    if (size > 0) std::memcpy(copy.mutable_data_ptr(), data_, size);
    return copy;
  }
  c10::DataPtr pointer(data_, data_, &c10::free_cpu, at::kCPU);
  data_ = nullptr;
  c10::Storage storage(c10::Storage::use_byte_size_t(), size, std::move(pointer),
                       c10::GetCPUAllocator(), /*resizable=*/true);
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU),
      at::scalarTypeToTypeMeta(dtype));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous({count});
  return tensor;
}

}  // namespace qvlmem::ops
