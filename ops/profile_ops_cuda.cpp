// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <vector>

#include "kernels/profile/profile_cuda.h"
#include "ops/base/check.h"
#include "ops/base/device_flag.h"
#include "ops/profile_ops.h"

namespace qvlmem::ops {

at::Tensor profile_values_cuda(const at::Tensor& x) {
  const ProfilePlan plan = prepare_profile(x);
  const c10::cuda::CUDAGuard guard(x.device());
  check_not_capturing("profile_values");
  const at::Tensor values = x.contiguous();
  const at::Tensor gathered = at::empty({profile_gathered_count(plan)}, x.options());
  C10_CUDA_CHECK(profile_gather_cuda(plan, values.const_data_ptr(), gathered.mutable_data_ptr(),
                                     c10::cuda::getCurrentCUDAStream()));
  const at::Tensor on_host = gathered.cpu();
  at::Tensor fields = at::empty({kProfileFields}, on_host.options().dtype(at::kDouble));
  std::vector<float> workspace(plan.workspace_bytes / sizeof(float));
  profile_gathered_cpu(plan, on_host.const_data_ptr(), workspace.data(),
                       fields.mutable_data_ptr<double>());
  return fields.to(x.device());
}

}  // namespace qvlmem::ops
