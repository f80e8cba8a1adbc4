// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/quantize/quantize_cuda.h"
#include "ops/base/check.h"
#include "ops/base/device_flag.h"
#include "ops/quantize_ops.h"

namespace qvlmem::ops {

std::tuple<at::Tensor, at::Tensor, at::Tensor> quantize_cuda(const at::Tensor& x, int64_t bits,
                                                             bool symmetric, int64_t group_size,
                                                             std::optional<int64_t> rounding_seed) {
  const QuantizeCall call = prepare_quantize(x, bits, symmetric, group_size);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor values = x.contiguous();
  const uint64_t seed = static_cast<uint64_t>(rounding_seed.value_or(0));
  const at::Tensor workspace =
      at::empty({quantize_workspace_bytes(call.plan, rounding_seed.has_value())},
                x.options().dtype(at::kByte));
  const DeviceFlag non_finite(x);
  C10_CUDA_CHECK(qvlmem::quantize_cuda(
      call.plan, values.const_data_ptr(), kernel_dtype("quantize", x.scalar_type()),
      rounding_seed ? &seed : nullptr, call.q.mutable_data_ptr(),
      call.scale.mutable_data_ptr<float>(),
      symmetric ? nullptr : call.zero_point.mutable_data_ptr<int32_t>(), non_finite.data(),
      workspace.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  if (non_finite.read() != 0) throw_non_finite("quantize", x);
  return {call.q, call.scale, call.zero_point};
}

at::Tensor dequantize_cuda(const at::Tensor& q, const at::Tensor& scale,
                           const at::Tensor& zero_point, at::IntArrayRef shape, int64_t bits,
                           int64_t group_size, std::optional<at::ScalarType> dtype) {
  const DequantizeCall call =
      prepare_dequantize(q, scale, zero_point, shape, bits, group_size, dtype);
  const c10::cuda::CUDAGuard guard(call.q.device());
  C10_CUDA_CHECK(qvlmem::dequantize_cuda(
      call.plan, call.q.const_data_ptr(), call.scale.const_data_ptr<float>(),
      call.plan.symmetric ? nullptr : call.zero_point.const_data_ptr<int32_t>(),
      call.y.mutable_data_ptr(), kernel_dtype("dequantize", call.y.scalar_type()),
      c10::cuda::getCurrentCUDAStream()));
  return call.y;
}

bool all_finite_cuda(const at::Tensor& x) {
  check_lossy_input("all_finite", x);
  const c10::cuda::CUDAGuard guard(x.device());
  check_not_capturing("compress");
  const at::Tensor values = x.contiguous();
  const DeviceFlag non_finite(x);
  C10_CUDA_CHECK(find_non_finite_cuda(values.const_data_ptr(),
                                      kernel_dtype("all_finite", x.scalar_type()), x.numel(),
                                      non_finite.data(), c10::cuda::getCurrentCUDAStream()));
  return non_finite.read() == 0;
}

}  // namespace qvlmem::ops
