// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstring>

#include "kernels/bounded/bounded_cuda.h"
#include "ops/base/check.h"
#include "ops/base/device_flag.h"
#include "ops/bounded_ops.h"

namespace qvlmem::ops {
namespace {

constexpr const char* kOp = "bounded";

// Waits for the stream.
BoundedFound read_found(const at::Tensor& found) {
  const at::Tensor on_host = found.cpu();
  BoundedFound read;
  std::memcpy(&read, on_host.const_data_ptr(), sizeof(read));
  return read;
}

Status status_of(const BoundedFound& found) {
  if (found.non_finite != 0) return Status::kNonFinite;
  return found.missed != 0 ? Status::kBoundMissed : Status::kOk;
}

Payload to_host(const Payload& payload) {
  Payload on_host{payload.params, {}};
  for (const at::Tensor& part : payload.parts) on_host.parts.push_back(part.cpu());
  return on_host;
}

}  // namespace

Payload encode_bounded_cuda(const at::Tensor& x, const CompressOptions& options) {
  const c10::cuda::CUDAGuard guard(x.device());
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  const BoundedCall call = prepare_bounded(x, options);
  check_not_capturing(kOp);
  const DType dtype = kernel_dtype(kOp, x.scalar_type());
  const void* const values = call.values.const_data_ptr();
  float* const step = call.step.mutable_data_ptr<float>();
  const at::TensorOptions bytes = x.options().dtype(at::kByte);
  const at::Tensor workspace = at::empty({bounded_encode_workspace_bytes(call.plan)}, bytes);
  const at::Tensor on_device = at::empty({static_cast<int64_t>(sizeof(BoundedFound))}, bytes);
  BoundedFound found;
  BoundedLooks looks{true, bounded_looks(call.plan)};
  do {
    C10_CUDA_CHECK(bounded_find_cuda(call.plan, values, dtype, call.target, looks, step,
                                     call.bytes.mutable_data_ptr<int32_t>(),
                                     static_cast<BoundedFound*>(on_device.mutable_data_ptr()),
                                     workspace.mutable_data_ptr(), stream));
    found = read_found(on_device);
    check_bounded_found(status_of(found), x, call.target);
    looks.first = false;
  } while (found.open != 0);
  at::Tensor packed = at::empty({found.total_bytes}, bytes);
  C10_CUDA_CHECK(bounded_encode_cuda(call.plan, values, dtype, step,
                                     packed.mutable_data_ptr<uint8_t>(), workspace.const_data_ptr(),
                                     stream));
  const bool short_steps = found.long_steps == 0 && call.step.numel() > 1;
  return {{call.param},
          {short_steps ? call.step.to(at::kBFloat16) : call.step, call.bytes, packed}};
}

at::Tensor decode_bounded_cuda(const Payload& payload, const TensorInfo& info) {
  const at::Tensor packed = payload.parts[2].contiguous(), bytes = payload.parts[1].contiguous();
  const c10::cuda::CUDAGuard guard(packed.device());
  const auto on_host = [&] {
    check_not_capturing(kOp);
    return decode_bounded_cpu(to_host(payload), info).to(packed.device());
  };
  if ((payload.params[0] & kBoundedCoded) != 0) return on_host();
  const BoundedPlan plan = bounded_plan(info.shape, payload.params[0]);
  const at::Tensor step = payload.parts[0].to(at::kFloat).contiguous();
  at::Tensor y = at::empty(info.shape, packed.options().dtype(info.dtype));
  const at::Tensor workspace = at::empty({bounded_decode_workspace_bytes(plan)}, packed.options());
  const DeviceFlag refused(packed);
  C10_CUDA_CHECK(bounded_decode_cuda(
      plan, packed.const_data_ptr<uint8_t>(), packed.numel(), bytes.const_data_ptr<int32_t>(),
      step.const_data_ptr<float>(), y.mutable_data_ptr(), kernel_dtype(kOp, info.dtype),
      refused.data(), workspace.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  // The host says what is wrong.
  return refused.read() == 0 ? y : on_host();
}

}  // namespace qvlmem::ops
