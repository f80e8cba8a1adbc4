// SPDX-License-Identifier: Apache-2.0
// Between integers and what a coded unit holds of them. n: a multiple of kIntPackBlock.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/isa.h"

namespace qvlmem {

QVLMEM_SIMD_DECLARE(
    // The sum of the lengths of |q| in bits.
    uint64_t bounded_bit_lengths(const int32_t* q, size_t n);
    // 1 + zigzag(q >> low_bits), 0 where that exceeds `largest`. True where there is a 0.
    bool bounded_split(const int32_t* q, size_t n, uint32_t low_bits, uint8_t largest,
                       uint8_t* symbols);
    // The inverse, but for symbols of 0: any integers there. q holds the lowest bits before.
    void bounded_join(const uint8_t* symbols, size_t n, uint32_t low_bits, int32_t* q);)

}  // namespace qvlmem
