// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/device.cuh"
#include "kernels/profile/profile_cuda.h"
#include "kernels/profile/profile_math.h"

namespace qvlmem {
namespace {

template <class Bits>
__global__ void __launch_bounds__(kBlockThreads)
    gather(ProfilePlan plan, int count, const Bits* x, Bits* gathered) {
  const int i = static_cast<int>(blockIdx.x * kBlockThreads + threadIdx.x);
  if (i < count) gathered[i] = x[profile_source(plan, i)];
}

}  // namespace

cudaError_t profile_gather_cuda(const ProfilePlan& plan, const void* x, void* gathered,
                                cudaStream_t stream) noexcept {
  const int64_t count = profile_gathered_count(plan);
  if (count == 0) return cudaSuccess;
  const auto launch = [&](auto bits) {
    using Bits = decltype(bits);
    gather<<<blocks_for(count), kBlockThreads, 0, stream>>>(
        plan, static_cast<int>(count), static_cast<const Bits*>(x), static_cast<Bits*>(gathered));
    return cudaGetLastError();
  };
  return dtype_bytes(plan.dtype) == 4 ? launch(uint32_t()) : launch(uint16_t());
}

}  // namespace qvlmem
