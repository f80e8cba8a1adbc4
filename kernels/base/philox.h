// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011): a pure function of a key and a counter, hence the same on every back end and for every
// split of the work.
#pragma once

#include <cstdint>

#include "kernels/base/macros.h"

namespace qvlmem {

struct PhiloxBlock {
  uint32_t word[4];
};

QVLMEM_HD inline PhiloxBlock philox4x32(uint64_t key, uint64_t counter) {
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = 0, c3 = 0;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(c0) * 0xD2511F53u;
    const uint64_t p1 = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
    const uint32_t next0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key0;
    const uint32_t next2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = next0;
    c2 = next2;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return PhiloxBlock{{c0, c1, c2, c3}};
}

// A random word as a uniform number in [0, 1) with 24 bits.
QVLMEM_HD inline float philox_fraction(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

// The same for the element at `index` of a tensor.
QVLMEM_HD inline float philox_uniform(uint64_t key, uint64_t index) {
  const PhiloxBlock block = philox4x32(key, index >> 2);
  return philox_fraction(block.word[index & 3]);
}

}  // namespace qvlmem
