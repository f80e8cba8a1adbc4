// SPDX-License-Identifier: Apache-2.0
// A matrix as BLAS wants it: where its elements stand, and which of its strides is 1.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

namespace qvlmem::ops {

template <class T>
struct BlasView {
  const T* data;
  int64_t leading;
  bool row_major;

  explicit BlasView(const at::Tensor& x) : data(x.const_data_ptr<T>()) {
    row_major = x.stride(1) == 1 || x.size(1) == 1;
    TORCH_INTERNAL_ASSERT(x.dim() == 2 && (row_major || x.stride(0) == 1 || x.size(0) == 1));
    leading = row_major ? std::max(x.stride(0), x.size(1)) : std::max(x.stride(1), x.size(0));
  }
  const T* at(int64_t row, int64_t col) const {
    return row_major ? data + row * leading + col : data + col * leading + row;
  }
};

}  // namespace qvlmem::ops
