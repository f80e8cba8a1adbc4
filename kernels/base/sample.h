// SPDX-License-Identifier: Apache-2.0
// Positions of a sample: a pure function of sizes, hence the same on every back end.
#pragma once

#include <cstdint>

#include "kernels/base/macros.h"

namespace qvlmem {

// n elements are cut into `strata` nearly equal parts; the start of a run of `length` elements
// somewhere within part `stratum`. `sequence` numbers all runs of one sample: a Weyl sequence by it
// places them, so that no row length is in step with the sample.
// REQUIRES: 0 <= stratum < strata <= 2^31, 1 <= length <= n / strata, sequence >= 0.
QVLMEM_HD inline int64_t sample_begin(int64_t n, int64_t strata, int64_t stratum, int64_t length,
                                      int64_t sequence) {
  const int64_t quotient = n / strata, remainder = n % strata;
  // floor(stratum * n / strata), without a product of n.
  const int64_t begin = stratum * quotient + stratum * remainder / strata;
  const int64_t end = (stratum + 1) * quotient + (stratum + 1) * remainder / strata;
  const uint64_t weyl = static_cast<uint64_t>(sequence) * 0x9E3779B97F4A7C15u >> 20;
  return begin + static_cast<int64_t>(weyl % static_cast<uint64_t>(end - begin - length + 1));
}

}  // namespace qvlmem
