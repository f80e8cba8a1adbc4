// SPDX-License-Identifier: Apache-2.0
// Between scalars and the planes of their words' bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/isa.h"
#include "kernels/lossless/lossless.h"

namespace qvlmem {

constexpr size_t kPlaneAlignment = 32;

QVLMEM_SIMD_DECLARE(
    // Maps n scalars of scalar_bytes (1, 2, 4 or 8) bytes to words and writes byte b of word i to
    // planes[b][i]; past the caches where bit b of stream_mask is set and planes[b] is aligned to
    // kPlaneAlignment.
    void split_planes(const void* x, size_t n, size_t scalar_bytes, LosslessMap map,
                      uint32_t stream_mask, uint8_t* const* planes);
    // The inverse. stream: past the caches, where y is aligned to kPlaneAlignment.
    void merge_planes(const uint8_t* const* planes, size_t n, size_t scalar_bytes, LosslessMap map,
                      bool stream, void* y);)

}  // namespace qvlmem
