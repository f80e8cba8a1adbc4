// SPDX-License-Identifier: Apache-2.0
// Orders of the eight lanes of a 256-bit vector, for the vector sources of sparse.
#pragma once

#include "kernels/base/simd.h"

#if HWY_TARGET != HWY_SCALAR
QVLMEM_SIMD_BEGIN
namespace {

// Lane orders for each byte of mask bits. Highway's own compress keeps such a table on the stack,
// where g++ 12 fills it anew for every vector.
struct LaneTables {
  uint64_t gather[256];  // the lanes whose bit is set, in order
  uint64_t spread[256];  // for each lane the number of set bits below it
  constexpr LaneTables() : gather(), spread() {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint64_t rank = 0;
      for (uint64_t lane = 0; lane < 8; ++lane) {
        spread[byte] |= rank << (8 * lane);
        if (((byte >> lane) & 1) == 0) continue;
        gather[byte] |= lane << (8 * rank);
        ++rank;
      }
    }
  }
};
constexpr LaneTables kLaneTables;

using DEight = hn::Simd<uint32_t, 8, 0>;

HWY_INLINE hn::Vec<DEight> lane_order(const uint64_t& bytes) {
  const hn::Rebind<uint8_t, DEight> d8;
  return hn::PromoteTo(DEight(), hn::LoadU(d8, reinterpret_cast<const uint8_t*>(&bytes)));
}

}  // namespace
QVLMEM_SIMD_END
#endif
