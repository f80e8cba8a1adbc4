// SPDX-License-Identifier: Apache-2.0
// The vector loops that read dense elements: bit patterns of 4 or 2 bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/isa.h"
#include "kernels/sparse/sparse_select.h"

namespace qvlmem {

// A histogram of one call's elements; two rows, so that equal keys in a row do not wait for each
// other's store.
struct SparseRunHistogram {
  uint32_t below;
  uint32_t bins[2][kSparseBins];
};

QVLMEM_SIMD_DECLARE(
    // Elements whose bits & key_mask lie in low..high. REQUIRES: n <= 65536.
    size_t sparse_count_run(const void* x, int64_t element_bytes, size_t n, uint32_t key_mask,
                            uint32_t low, uint32_t high);
    // Adds n elements to *histogram.
    void sparse_histogram_run(const void* x, int64_t element_bytes, size_t n, uint32_t key_mask,
                              SparseKeyRange range, SparseRunHistogram* histogram);
    // Gathers the elements whose key is above cut: their values and either (bits is null) their
    // positions first..first + n - 1 or a bit for each of the n elements, the last byte padded with
    // 0. Returns how many; where key_mask leaves a bit out or cut is above 0, raises *largest_key to
    // that of all. Vector stores run up to 64 bytes beyond. REQUIRES: first + n <= 65536.
    size_t sparse_gather_run(const void* x, int64_t element_bytes, size_t n, uint32_t key_mask,
                             uint32_t cut, size_t first, void* values, uint16_t* positions,
                             uint8_t* bits, uint32_t* largest_key);
    // indices[i] = base + positions[i].
    void sparse_place_run(const uint16_t* positions, size_t n, int32_t base, bool stream,
                          int32_t* indices);
    // memcpy that does not fill the cache with what it writes.
    void sparse_stream_copy(const void* from, size_t bytes, void* to);)

}  // namespace qvlmem
