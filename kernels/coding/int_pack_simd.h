// SPDX-License-Identifier: Apache-2.0
// The vector loops of int_pack.h. `blocks` blocks of 32 values each; a short last block is the
// caller's to fill up (with its last value: that costs no width).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/isa.h"
#include "kernels/base/status.h"
#include "kernels/coding/int_pack.h"

namespace qvlmem {

QVLMEM_SIMD_DECLARE(
    // The header of each block. Returns the bytes of all their payloads.
    size_t int_pack_measure(const int32_t* values, size_t blocks, uint8_t* headers);
    // The payloads of the blocks, with headers of int_pack_measure; `capacity` bytes are there.
    // Returns the bytes of the payloads, or SIZE_MAX where they would not fit: never writes
    // beyond capacity, but may write kIntPackSlack bytes beyond the payloads within it.
    size_t int_pack(const int32_t* values, const uint8_t* headers, size_t blocks, uint8_t* payload,
                    size_t capacity);
    // Bytes of the payloads that hostile headers announce, or SIZE_MAX where a width is above 32.
    size_t int_unpack_measure(const uint8_t* headers, size_t blocks);
    // Unpacks. REQUIRES: int_unpack_measure(headers, blocks) <= size.
    void int_unpack(const uint8_t* headers, size_t blocks, const uint8_t* payload, size_t size,
                    int32_t* values);)

}  // namespace qvlmem
