// SPDX-License-Identifier: Apache-2.0
#include "ops/sparse_prune.h"

#include <mutex>

#include "ops/base/parallel.h"

namespace qvlmem::ops {

bool probably_sparse(const SparsePlan& plan, const void* x, int64_t target, SparseKeyRange* range) {
  if (target == 0) return true;
  std::vector<uint32_t> keys(std::min(plan.numel, kSparseSample));
  return sparse_sample_cpu(plan, x, target, keys.data(), range);
}

std::vector<int64_t> count_keys(const SparsePlan& plan, const void* x, uint32_t low,
                                uint32_t high) {
  std::vector<int64_t> counts(plan.unit_count);
  parallel_units(plan.unit_count, kSparseGrain, [&](int64_t begin, int64_t end) {
    sparse_count_keys_cpu(plan, x, begin, end, sparse_magnitude_mask(plan.dtype), low, high,
                          &counts[begin]);
  });
  return counts;
}

SparseRule prune_rule(const SparsePlan& plan, const void* x, int64_t target, SparseKeyRange range) {
  SparseRule rule = sparse_nonzero_rule(plan.dtype, true);
  if (target == 0) return rule;
  SparseCut cut;
  for (bool found = false; !found;) {
    SparseHistogram histogram;
    std::mutex mutex;
    parallel_units(plan.unit_count, kSparseGrain, [&](int64_t begin, int64_t end) {
      SparseHistogram part;
      sparse_histogram_cpu(plan, x, begin, end, range, &part);
      const std::lock_guard<std::mutex> lock(mutex);
      histogram.below += part.below;
      for (int bin = 0; bin < kSparseBins; ++bin) histogram.bins[bin] += part.bins[bin];
    });
    found = sparse_narrow(histogram, target, &range, &cut);
  }
  rule.cut = cut.key;
  // Zeros are not stored anyway; of others with this magnitude the first few may have to stay.
  int64_t staying = cut.key == 0 ? 0 : cut.below + cut.equal - target;
  if (staying > 0) {
    const std::vector<int64_t> ties = count_keys(plan, x, cut.key, cut.key);
    int64_t unit = 0;
    while (staying > ties[unit]) staying -= ties[unit++];
    rule.boundary = sparse_boundary_cpu(plan, x, unit, cut.key, staying);
  }
  return rule;
}

}  // namespace qvlmem::ops
