// SPDX-License-Identifier: Apache-2.0
// The vector loop of svd's pass over x.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/isa.h"
#include "kernels/svd/svd.h"

namespace qvlmem {

QVLMEM_SIMD_DECLARE(SvdScan svd_scan_run(const void* x, DType dtype, size_t n);)

}  // namespace qvlmem
