// SPDX-License-Identifier: Apache-2.0
// quantize and dequantize on CUDA: the layout and the bytes of quantize.h, on device memory.
#pragma once

#include "kernels/base/cuda.h"
#include "kernels/quantize/quantize.h"

namespace qvlmem {

// Bytes of device memory, aligned to 16, that quantize_cuda needs beside its outputs.
int64_t quantize_workspace_bytes(const QuantizePlan& plan, bool stochastic) noexcept;

// Writes all of q and scale, and zero_point unless plan.symmetric. seed: nullptr rounds to nearest
// even, else stochastically. Where a value is NaN or infinite, *non_finite becomes 1 (the caller
// sets it to 0 before) and its group's scale NaN.
cudaError_t quantize_cuda(const QuantizePlan& plan, const void* x, DType dtype,
                          const uint64_t* seed, void* q, float* scale, int32_t* zero_point,
                          int32_t* non_finite, void* workspace, cudaStream_t stream) noexcept;

// Decodes all of q into y (rows x cols, dense, of type dtype), saturating at the type's largest
// finite value. zero_point: nullptr where symmetric.
cudaError_t dequantize_cuda(const QuantizePlan& plan, const void* q, const float* scale,
                            const int32_t* zero_point, void* y, DType dtype,
                            cudaStream_t stream) noexcept;

// *non_finite becomes 1 where one of the values is NaN or infinite.
cudaError_t find_non_finite_cuda(const void* x, DType dtype, int64_t numel, int32_t* non_finite,
                                 cudaStream_t stream) noexcept;

}  // namespace qvlmem
