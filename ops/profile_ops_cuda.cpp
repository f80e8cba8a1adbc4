// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/profile/profile_cuda.h"
#include "ops/profile_ops.h"

namespace qvlmem::ops {

at::Tensor profile_values_cuda(const at::Tensor& x) {
  const ProfilePlan plan = prepare_profile(x);
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor fields = at::empty({kProfileFields}, x.options().dtype(at::kDouble));
  const at::Tensor values = x.contiguous();
  const at::Tensor workspace =
      at::empty({profile_workspace_bytes(plan)}, x.options().dtype(at::kByte));
  C10_CUDA_CHECK(profile_cuda(plan, values.const_data_ptr(), fields.mutable_data_ptr<double>(),
                              workspace.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  return fields;
}

}  // namespace qvlmem::ops
