// SPDX-License-Identifier: Apache-2.0
// The error measurement on CUDA: the sums of error.h, bit by bit, on device memory.
#pragma once

#include "kernels/base/cuda.h"
#include "kernels/error/error.h"

namespace qvlmem {

// Writes partials[plan.unit_count], on the device, with the values that measure_error_cpu gives:
// merge_errors adds them on the host. Reads x and y once (float64: twice).
cudaError_t measure_error_cuda(const ErrorPlan& plan, const void* x, const void* y,
                               ErrorPartial* partials, cudaStream_t stream) noexcept;

}  // namespace qvlmem
