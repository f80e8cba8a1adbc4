// SPDX-License-Identifier: Apache-2.0
// The profile of a tensor on the device: a kernel gathers what profile_cpu would look at, one copy
// takes it to the host, and profile_gathered_cpu makes the numbers of it: the same as
// profile_cpu's.
#pragma once

#include "kernels/base/cuda.h"
#include "kernels/profile/profile.h"

namespace qvlmem {

// Writes profile_gathered_count(plan) elements of x's type to `gathered`, on the device.
cudaError_t profile_gather_cuda(const ProfilePlan& plan, const void* x, void* gathered,
                                cudaStream_t stream) noexcept;

}  // namespace qvlmem
