// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/lossless/lossless_cuda.h"
#include "ops/base/check.h"
#include "ops/base/device_flag.h"
#include "ops/lossless_ops.h"

namespace qvlmem::ops {

at::Tensor lossless_encode_cuda(const at::Tensor& x, int64_t level) {
  const c10::cuda::CUDAGuard guard(x.device());
  const LosslessEncodeCall call = prepare_lossless_encode(x, level);
  check_not_capturing("lossless_encode");
  if (level == 2) return lossless_encode_cpu(call.values.cpu(), level).to(x.device());
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  const at::TensorOptions bytes = x.options().dtype(at::kByte);
  const at::Tensor workspace = at::empty({lossless_encode_workspace_bytes(call.plan)}, bytes);
  const at::Tensor size = at::empty({1}, x.options().dtype(at::kLong));
  C10_CUDA_CHECK(lossless_measure_cuda(call.plan, call.values.const_data_ptr(),
                                       size.mutable_data_ptr<int64_t>(),
                                       workspace.mutable_data_ptr(), stream));
  at::Tensor out = at::empty({size.item<int64_t>()}, bytes);
  C10_CUDA_CHECK(qvlmem::lossless_encode_cuda(call.plan, call.values.const_data_ptr(),
                                              out.mutable_data_ptr<uint8_t>(),
                                              workspace.const_data_ptr(), stream));
  return out;
}

at::Tensor lossless_decode_cuda(const at::Tensor& bytes, at::IntArrayRef shape,
                                at::ScalarType dtype) {
  const c10::cuda::CUDAGuard guard(bytes.device());
  const LosslessDecodeCall call = prepare_lossless_decode(bytes, shape, dtype);
  at::Tensor y = at::empty(shape, bytes.options().dtype(dtype));
  const at::Tensor workspace =
      at::empty({lossless_decode_workspace_bytes(call.plan)}, call.bytes.options());
  const DeviceFlag refused(bytes);
  C10_CUDA_CHECK(qvlmem::lossless_decode_cuda(
      call.plan, call.bytes.const_data_ptr<uint8_t>(), call.bytes.numel(), y.mutable_data_ptr(),
      refused.data(), workspace.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  if (refused.read() == 0) return y;
  // The host decodes what is coded by entropy, and says what is wrong with anything else.
  return lossless_decode_cpu(call.bytes.cpu(), shape, dtype).to(bytes.device());
}

}  // namespace qvlmem::ops
