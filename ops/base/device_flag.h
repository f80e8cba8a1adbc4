// SPDX-License-Identifier: Apache-2.0
// An int32 on a CUDA device, 0 at first, by which kernels tell the host of what they refuse.
//
// While a stream is captured the host hears of nothing, and so nothing is refused: what refused
// bytes or positions would have covered (a unit, a tile, or all of the tensor where what is common
// to them is damaged) becomes bytes of 0xff then, NaN in floats. Other values are what they would
// be without it, or, of densify, values from elsewhere in the list.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>

namespace qvlmem::ops {

inline bool is_capturing() {
  return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
}

// RuntimeError while a graph is captured: for ops that must wait for what they find.
inline void check_not_capturing(const char* op) {
  TORCH_CHECK(!is_capturing(), "qvlmem::", op,
              ": expected no CUDA graph to be captured: what it finds must reach the host");
}

class DeviceFlag {
 public:
  // like: a tensor on the device.
  explicit DeviceFlag(const at::Tensor& like)
      : flag_(at::zeros({1}, like.options().dtype(at::kInt))) {}

  int32_t* data() const { return flag_.mutable_data_ptr<int32_t>(); }

  // Waits for the stream. While it is captured nothing can be read: 0 then.
  int32_t read() const { return is_capturing() ? 0 : flag_.item<int32_t>(); }

 private:
  at::Tensor flag_;
};

}  // namespace qvlmem::ops
