// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/half/half_cuda.h"
#include "ops/base/check.h"
#include "ops/half_ops.h"

namespace qvlmem::ops {

std::tuple<at::Tensor, at::Tensor> to_fp16_cuda(const at::Tensor& x) {
  const c10::cuda::CUDAGuard guard(x.device());
  const HalfEncodeCall call = prepare_to_fp16(x);
  const at::Tensor workspace = at::empty({kHalfWorkspaceBytes}, x.options().dtype(at::kByte));
  C10_CUDA_CHECK(half_encode_cuda(call.plan, call.x.const_data_ptr(), call.half.mutable_data_ptr(),
                                  call.scale.mutable_data_ptr(), workspace.mutable_data_ptr(),
                                  c10::cuda::getCurrentCUDAStream()));
  return {call.half, call.scale};
}

at::Tensor from_fp16_cuda(const at::Tensor& half, const at::Tensor& scale,
                          std::optional<at::ScalarType> dtype) {
  const HalfDecodeCall call = prepare_from_fp16(half, scale, dtype);
  const c10::cuda::CUDAGuard guard(half.device());
  C10_CUDA_CHECK(half_decode_cuda(call.plan, call.half.const_data_ptr(), scale.const_data_ptr(),
                                  kernel_dtype("from_fp16", scale.scalar_type()),
                                  call.y.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  return call.y;
}

}  // namespace qvlmem::ops
