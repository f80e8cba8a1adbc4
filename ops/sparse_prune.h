// SPDX-License-Identifier: Apache-2.0
// Which elements of a tensor sparsify stores: the search of the pruning threshold.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/sparse/sparse.h"

namespace qvlmem::ops {

// Units that a thread takes at least: below that, waking one costs more.
constexpr int64_t kSparseGrain = 4;

// Whether a sample says that x (contiguous, of plan's dtype) has `target` zeros, so that pruning
// drops nothing, and otherwise where to look for the magnitude to cut at.
bool probably_sparse(const SparsePlan& plan, const void* x, int64_t target, SparseKeyRange* range);

// The rule that leaves plan.numel - target elements, or fewer where more are zero. range: where to
// look first. NaN and infinities count as the largest: they must be looked for elsewhere.
SparseRule prune_rule(const SparsePlan& plan, const void* x, int64_t target, SparseKeyRange range);

// Elements of each unit with low <= key <= high.
std::vector<int64_t> count_keys(const SparsePlan& plan, const void* x, uint32_t low, uint32_t high);

}  // namespace qvlmem::ops
