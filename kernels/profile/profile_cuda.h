// SPDX-License-Identifier: Apache-2.0
// The profile of a tensor on the device: the numbers of profile_cpu, bit by bit.
#pragma once

#include "kernels/base/cuda.h"
#include "kernels/profile/profile.h"

namespace qvlmem {

// Bytes of device memory, aligned to 16, that profile_cuda needs: 400 KiB at most.
int64_t profile_workspace_bytes(const ProfilePlan& plan) noexcept;

// fields[kProfileFields], x and the workspace: on the device.
cudaError_t profile_cuda(const ProfilePlan& plan, const void* x, double* fields, void* workspace,
                         cudaStream_t stream) noexcept;

}  // namespace qvlmem
