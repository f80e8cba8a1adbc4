// SPDX-License-Identifier: Apache-2.0
#include "kernels/sparse/sparse_select.h"

namespace qvlmem {

SparseKeyRange sparse_key_range(uint32_t low, uint32_t high) noexcept {
  SparseKeyRange range{low, 0};
  while (((high - low) >> range.shift) >= static_cast<uint32_t>(kSparseBins)) ++range.shift;
  return range;
}

bool sparse_narrow(const SparseHistogram& histogram, int64_t rank, SparseKeyRange* range,
                   SparseCut* cut) noexcept {
  if (rank <= histogram.below) {
    *range = sparse_key_range(0, range->low - 1);
    return false;
  }
  int64_t below = histogram.below;
  for (uint32_t bin = 0; bin < static_cast<uint32_t>(kSparseBins); ++bin) {
    const int64_t count = histogram.bins[bin];
    if (rank <= below + count) {
      const uint32_t low = range->low + (bin << range->shift);
      if (range->shift == 0) {
        *cut = SparseCut{low, below, count};
        return true;
      }
      *range = sparse_key_range(low, low + (1u << range->shift) - 1);
      return false;
    }
    below += count;
  }
  // Beyond the range, which a sample placed too low.
  *range = sparse_key_range(range->low + (static_cast<uint32_t>(kSparseBins) << range->shift),
                            0x7fffffffu);
  return false;
}

}  // namespace qvlmem
