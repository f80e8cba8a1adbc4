// SPDX-License-Identifier: Apache-2.0
#include "ops/sparse_compact.h"

#include <ATen/ops/empty.h>

#include <atomic>
#include <memory>
#include <numeric>
#include <vector>

#include "ops/base/check.h"
#include "ops/base/output.h"
#include "ops/base/parallel.h"
#include "ops/sparse_prune.h"

namespace qvlmem::ops {
namespace {

// Stored elements before each unit, and in all.
std::vector<int64_t> count_stored(const SparsePlan& plan, const SparseRule& rule, const void* x) {
  std::vector<int64_t> offsets(plan.unit_count + 1);
  parallel_units(plan.unit_count, kSparseGrain, [&](int64_t begin, int64_t end) {
    sparse_count_kept_cpu(plan, rule, x, begin, end, &offsets[begin + 1]);
  });
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  return offsets;
}

// Calls f(begin, end, index, offsets), which returns a Status, for all units of an index.
template <class F>
void for_units(const SparsePlan& plan, const at::Tensor& index, const F& f) {
  const at::Tensor dense = index.contiguous();
  const void* const bytes = dense.const_data_ptr();
  std::vector<int64_t> offsets(plan.unit_count + 1);
  check_status("sparse", "the index", sparse_offsets(plan, bytes, offsets.data()));
  std::atomic<bool> refused{false};
  parallel_units(plan.unit_count, kSparseGrain, [&](int64_t begin, int64_t end) {
    const Status status = f(begin, end, bytes, offsets.data());
    if (status != Status::kOk) refused.store(true, std::memory_order_relaxed);
  });
  check_status("sparse", "the index", refused ? Status::kCorrupt : Status::kOk);
}

// torch's positions of one dimension after the other, from flat ones in the last row: each step
// divides the last row by a size and leaves the remainder in place.
void split_positions(at::IntArrayRef shape, int64_t nnz, int64_t* rows) {
  const int64_t dims = static_cast<int64_t>(shape.size());
  const int64_t* flat = rows + (dims - 1) * nnz;
  parallel_units(nnz, int64_t{1} << 14, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      int64_t rest = flat[k];
      for (int64_t d = dims; d-- > 0;) {
        rows[d * nnz + k] = rest % shape[d];
        rest /= shape[d];
      }
    }
  });
}

}  // namespace

SparseParts sparse_compact_cpu(const SparsePlan& plan, const at::Tensor& x, int64_t target) {
  const at::Tensor dense = x.contiguous();
  const void* data = dense.const_data_ptr();
  SparseRule rule = sparse_nonzero_rule(plan.dtype, true);
  std::vector<int64_t> offsets = count_stored(plan, rule, data);
  if (offsets.back() > plan.numel - target) {
    SparseKeyRange range;
    probably_sparse(plan, data, target, &range);
    rule = prune_rule(plan, data, target, range);
    offsets = count_stored(plan, rule, data);
  }
  const int64_t nnz = offsets.back();
  SparsePlan laid_out = plan;
  check_status("sparse", "x", set_sparse_layout(nnz, sparse_smallest_form(plan, nnz), &laid_out));
  at::Tensor index = empty_output({laid_out.index_bytes}, x.options().dtype(at::kByte));
  at::Tensor values = empty_output({nnz}, x.options());
  uint8_t* index_data = index.mutable_data_ptr<uint8_t>();
  void* value_data = values.mutable_data_ptr();
  std::atomic<Status> worst{Status::kOk};
  parallel_units(plan.unit_count, kSparseGrain, [&](int64_t begin, int64_t end) {
    const auto scratch = std::make_unique<SparseScratch>();
    const Status status = sparse_encode_cpu(laid_out, rule, data, begin, end, offsets.data(),
                                            index_data, value_data, scratch.get());
    if (status != Status::kOk && worst != Status::kNonFinite) worst = status;
  });
  if (worst == Status::kNonFinite) throw_non_finite("compress", x);
  TORCH_CHECK_VALUE(worst == Status::kOk, "qvlmem::compress: x changed while it was read");
  return {laid_out.form, index, values};
}

at::Tensor sparse_expand_cpu(const SparsePlan& plan, const at::Tensor& index,
                             const at::Tensor& values, at::IntArrayRef shape) {
  at::Tensor y = empty_output(shape, values.options());
  const at::Tensor stored = values.contiguous();
  const void* const from = stored.const_data_ptr();
  void* const data = y.mutable_data_ptr();
  for_units(plan, index,
            [&](int64_t begin, int64_t end, const void* bytes, const int64_t* offsets) {
              return sparse_decode_cpu(plan, bytes, offsets, from, begin, end, data);
            });
  return y;
}

int64_t sparse_nonzero_cpu(const SparsePlan& plan, const at::Tensor& x) {
  const at::Tensor dense = x.contiguous();
  return count_stored(plan, sparse_nonzero_rule(plan.dtype, true), dense.const_data_ptr()).back();
}

CooIndices empty_coo_indices(const SparsePlan& plan, const at::Tensor& index,
                             at::IntArrayRef shape) {
  const auto dims = static_cast<int64_t>(shape.size());
  const at::Tensor indices = at::empty({dims, plan.nnz}, index.options().dtype(at::kLong));
  return {indices, dims > 0 ? indices[dims - 1] : at::empty({plan.nnz}, indices.options())};
}

at::Tensor sparse_coo_indices_cpu(const SparsePlan& plan, const at::Tensor& index,
                                  at::IntArrayRef shape) {
  const CooIndices coo = empty_coo_indices(plan, index, shape);
  int64_t* const positions = coo.flat.mutable_data_ptr<int64_t>();
  for_units(plan, index,
            [&](int64_t begin, int64_t end, const void* bytes, const int64_t* offsets) {
              return sparse_positions_cpu(plan, bytes, offsets, begin, end, positions);
            });
  if (plan.nnz > 0 && !shape.empty()) {
    split_positions(shape, plan.nnz, coo.indices.mutable_data_ptr<int64_t>());
  }
  return coo.indices;
}

}  // namespace qvlmem::ops
