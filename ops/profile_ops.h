// SPDX-License-Identifier: Apache-2.0
// qvlmem::profile_values. What the fields mean: kernels/profile/profile.h. profile, the same with
// names, is declared in <qvlmem/qvlmem.h>.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/profile/profile.h"

namespace qvlmem::ops {

// x: float32, float16 or bfloat16, any shape and strides. Returns float64 [10]. TypeError for
// another dtype.
at::Tensor profile_values_cpu(const at::Tensor& x);
at::Tensor profile_values_cuda(const at::Tensor& x);
at::Tensor profile_values_meta(const at::Tensor& x);

// What every back end begins with: x is checked.
ProfilePlan prepare_profile(const at::Tensor& x);

}  // namespace qvlmem::ops
