// SPDX-License-Identifier: Apache-2.0
// The vector loop of the error measurement.
#pragma once

#include <cstddef>

#include "kernels/base/dtype.h"
#include "kernels/base/isa.h"
#include "kernels/error/error.h"

namespace qvlmem {

QVLMEM_SIMD_DECLARE(
    // Measures `rows` rows of `cols` values, dense, one after the other.
    void error_rows(const void* x, const void* y, DType dtype, size_t rows, size_t cols,
                    ErrorPartial* partial);)

}  // namespace qvlmem
