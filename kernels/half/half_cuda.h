// SPDX-License-Identifier: Apache-2.0
// The float16 codec on CUDA: the scale and the bytes of half.h, on device memory. The scale is
// chosen, and where the sample misled the tensor encoded again, without the host.
#pragma once

#include "kernels/base/cuda.h"
#include "kernels/half/half.h"

namespace qvlmem {

// Bytes of device memory, aligned to 16, that half_encode_cuda needs beside its outputs.
constexpr int64_t kHalfWorkspaceBytes = 8;

// Writes all of half, and one scale of type half_scale_dtype(plan.dtype). workspace:
// kHalfWorkspaceBytes.
cudaError_t half_encode_cuda(const HalfPlan& plan, const void* x, void* half, void* scale,
                             void* workspace, cudaStream_t stream) noexcept;

// y = half * scale, in plan.dtype, saturating as half_decode_cpu does. scale: one element of type
// scale_dtype, float32 or float64, on the device.
cudaError_t half_decode_cuda(const HalfPlan& plan, const void* half, const void* scale,
                             DType scale_dtype, void* y, cudaStream_t stream) noexcept;

}  // namespace qvlmem
