// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <type_traits>

#include "kernels/error/error_cuda.h"
#include "ops/base/device_flag.h"
#include "ops/error_ops.h"

namespace qvlmem::ops {

ErrorMeasure measure_error_cuda(const at::Tensor& x, const at::Tensor& y) {
  static_assert(std::is_trivially_copyable_v<ErrorPartial>, "partials travel as bytes");
  TORCH_INTERNAL_ASSERT(x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type());
  const ErrorPlan plan = prepare_error(x);
  const c10::cuda::CUDAGuard guard(x.device());
  check_not_capturing("compress");
  const at::Tensor a = x.contiguous(), b = y.contiguous();
  const int64_t bytes = plan.unit_count * static_cast<int64_t>(sizeof(ErrorPartial));
  const at::Tensor partials = at::empty({bytes}, x.options().dtype(at::kByte));
  C10_CUDA_CHECK(qvlmem::measure_error_cuda(plan, a.const_data_ptr(), b.const_data_ptr(),
                                            static_cast<ErrorPartial*>(partials.mutable_data_ptr()),
                                            c10::cuda::getCurrentCUDAStream()));
  const at::Tensor on_host = partials.cpu();
  return merge_errors(plan, static_cast<const ErrorPartial*>(on_host.const_data_ptr()));
}

}  // namespace qvlmem::ops
