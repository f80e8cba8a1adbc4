// SPDX-License-Identifier: Apache-2.0
// The k-th smallest key of a tensor, exactly, without sorting and without a copy: a radix selection
// from the most significant bits down (Alabi, Blanchard, Gordon, Steinbach: "Fast k-selection
// algorithms for graphics processing units", JEA 2012), as histograms of a range of keys that
// narrows. A first range taken from a sample saves passes; a wrong one costs a pass, never the
// result.
#pragma once

#include <cstdint>

#include "kernels/base/macros.h"

namespace qvlmem {

constexpr int kSparseBinBits = 11;
constexpr int kSparseBins = 1 << kSparseBinBits;

// Bin b holds the keys in [low + (b << shift), low + ((b + 1) << shift)).
struct SparseKeyRange {
  uint32_t low = 0;
  int shift = 20;  // every 31-bit key
};

// Counts of keys below the range and in each bin of it; add those of any parts of a tensor.
struct SparseHistogram {
  int64_t below = 0;
  int64_t bins[kSparseBins] = {};
};

struct SparseCut {
  uint32_t key = 0;
  int64_t below = 0;  // elements whose key is smaller
  int64_t equal = 0;  // elements with this key
};

// The narrowest range with the keys low to high, both included. REQUIRES: low <= high < 2^31.
QVLMEM_HD inline SparseKeyRange sparse_key_range(uint32_t low, uint32_t high) {
  SparseKeyRange range{low, 0};
  while (((high - low) >> range.shift) >= static_cast<uint32_t>(kSparseBins)) ++range.shift;
  return range;
}

// One step towards the rank-th smallest key (the first has rank 1), from the histogram of *range
// over the whole tensor: true where *cut is it, else *range is the next range to count.
// REQUIRES: 1 <= rank <= the number of elements; keys below 2^31.
bool sparse_narrow(const SparseHistogram& histogram, int64_t rank, SparseKeyRange* range,
                   SparseCut* cut) noexcept;

// ---- The three ways that a step goes ----

// The key is one of the `below` that lie below the range. REQUIRES: range->low > 0.
QVLMEM_HD inline bool sparse_narrow_below(int64_t below, SparseKeyRange* range, SparseCut* cut) {
  if (range->low == 1) {  // all of them are 0
    *cut = SparseCut{0, 0, below};
    return true;
  }
  *range = sparse_key_range(0, range->low - 1);
  return false;
}

// It is one of the `count` in bin `bin`; `below` lie below the bin.
QVLMEM_HD inline bool sparse_narrow_to_bin(uint32_t bin, int64_t below, int64_t count,
                                           SparseKeyRange* range, SparseCut* cut) {
  const uint32_t low = range->low + (bin << range->shift);
  if (range->shift == 0) {
    *cut = SparseCut{low, below, count};
    return true;
  }
  *range = sparse_key_range(low, low + (1u << range->shift) - 1);
  return false;
}

// It lies beyond the range, which a sample placed too low.
QVLMEM_HD inline void sparse_narrow_above(SparseKeyRange* range) {
  *range = sparse_key_range(range->low + (static_cast<uint32_t>(kSparseBins) << range->shift),
                            0x7fffffffu);
}

// ---- The sample ----

// Keys that a sample holds; all of a tensor that has no more elements.
constexpr int64_t kSparseSample = 8192;
// Elements that stand together in it, as a cache line or two is what is read anyway.
constexpr int64_t kSparseSampleRun = 16;

// Evenly spaced runs, and where among the sampled keys the wanted one lies.
struct SparseSampling {
  int64_t groups;  // of kSparseSampleRun elements in the tensor
  int64_t runs;    // groups that are sampled
  int64_t count;   // keys
  int64_t place;   // the rank in the sample, in 1..count
  int64_t margin;  // that the rank may be off: four standard deviations
};

// REQUIRES: 1 <= rank <= numel.
SparseSampling sparse_sampling(int64_t numel, int64_t rank) noexcept;

// The first element of a run. The products do not overflow.
QVLMEM_HD inline int64_t sparse_sample_begin(const SparseSampling& sampling, int64_t run) {
  const int64_t group = run * (sampling.groups / sampling.runs) +
                        run * (sampling.groups % sampling.runs) / sampling.runs;
  return group * kSparseSampleRun;
}

}  // namespace qvlmem
