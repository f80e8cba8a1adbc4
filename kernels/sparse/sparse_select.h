// SPDX-License-Identifier: Apache-2.0
// The k-th smallest key of a tensor, exactly, without sorting and without a copy: a radix selection
// from the most significant bits down (Alabi, Blanchard, Gordon, Steinbach: "Fast k-selection
// algorithms for graphics processing units", JEA 2012), as histograms of a range of keys that
// narrows. A first range taken from a sample saves passes; a wrong one costs a pass, never the
// result.
#pragma once

#include <cstdint>

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
SparseKeyRange sparse_key_range(uint32_t low, uint32_t high) noexcept;

// One step towards the rank-th smallest key (the first has rank 1), from the histogram of *range
// over the whole tensor: true where *cut is it, else *range is the next range to count.
// REQUIRES: 1 <= rank <= the number of elements; keys below 2^31.
bool sparse_narrow(const SparseHistogram& histogram, int64_t rank, SparseKeyRange* range,
                   SparseCut* cut) noexcept;

}  // namespace qvlmem
