// SPDX-License-Identifier: Apache-2.0
// The vector loops of bounded, on runs of values that have one step. Sums run over 32 interleaved
// partial sums, whatever the ISA, and so give the same bits on all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/isa.h"
#include "kernels/bounded/bounded_math.h"

namespace qvlmem {

QVLMEM_SIMD_DECLARE(
    void bounded_moments_run(const void* x, DType dtype, size_t n, BoundedMoments* moments);
    // REQUIRES: |x / step| <= 2^30.
    void bounded_error_run(const void* x, DType dtype, size_t n, float step, BoundedError* error);
    // q of n values. False where one is not finite or beyond 2^30 steps.
    bool bounded_quantize_run(const void* x, DType dtype, size_t n, float step, int32_t* q);
    // y of n values, for any q. REQUIRES: step is finite.
    void bounded_dequantize_run(const int32_t* q, size_t n, float step, bool stream, void* y,
                                DType dtype);)

}  // namespace qvlmem
