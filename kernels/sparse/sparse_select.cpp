// SPDX-License-Identifier: Apache-2.0
#include "kernels/sparse/sparse_select.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/checked.h"

namespace qvlmem {

bool sparse_narrow(const SparseHistogram& histogram, int64_t rank, SparseKeyRange* range,
                   SparseCut* cut) noexcept {
  if (rank <= histogram.below) return sparse_narrow_below(histogram.below, range, cut);
  int64_t below = histogram.below;
  for (uint32_t bin = 0; bin < static_cast<uint32_t>(kSparseBins); ++bin) {
    const int64_t count = histogram.bins[bin];
    if (rank <= below + count) return sparse_narrow_to_bin(bin, below, count, range, cut);
    below += count;
  }
  sparse_narrow_above(range);
  return false;
}

SparseSampling sparse_sampling(int64_t numel, int64_t rank) noexcept {
  SparseSampling s;
  s.groups = ceil_div(numel, kSparseSampleRun);
  s.runs = std::min(s.groups, kSparseSample / kSparseSampleRun);
  // The last group, which may be short, is only in a sample of all.
  s.count = s.runs == s.groups ? numel : kSparseSample;
  const double count = static_cast<double>(s.count);
  const double share = static_cast<double>(rank) / static_cast<double>(numel);
  s.place = std::clamp<int64_t>(std::llround(share * count), 1, s.count);
  s.margin = s.count == numel ? 0 : 1 + std::llround(4 * std::sqrt(count * share * (1 - share)));
  return s;
}

}  // namespace qvlmem
