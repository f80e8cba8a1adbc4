// SPDX-License-Identifier: Apache-2.0
// The vector loops that write dense elements, bit patterns of 4 or 2 bytes, from stored ones.
// Positions may be hostile.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/isa.h"

namespace qvlmem {

// How positions are stored; at any address but for the types of COO.
enum class SparsePositions : int { kInt32, kInt64, kUInt8, kUInt16 };

QVLMEM_SIMD_DECLARE(
    // Writes elements [begin, end) of y: zero but for those of entries [first, limit) that lie
    // before `end`. Entry k stands at origin + position k and has value k, of element_bytes (4 or
    // 2). Returns the first entry behind, or -1 where the entries are not strictly increasing or
    // lie before `begin`; y is then unspecified there.
    int64_t sparse_scatter_run(const void* positions, SparsePositions kind, int64_t origin,
                               int64_t first, int64_t limit, const void* values,
                               int64_t element_bytes, int64_t begin, int64_t end, bool stream,
                               void* y);
    // Spreads values over n elements of y: the next one where a bit is set, zero elsewhere.
    // `room`: elements that may be read at values, at least the number of set bits.
    void sparse_expand_run(const uint8_t* bits, const void* values, size_t room,
                           int64_t element_bytes, size_t n, bool stream, void* y);)

}  // namespace qvlmem
