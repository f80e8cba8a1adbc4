// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/base/checked.h"
#include "kernels/sparse/sparse.h"

namespace qvlmem {

Status make_sparse_plan(int64_t numel, DType dtype, SparsePlan* plan) noexcept {
  if (numel < 0 || !is_lossy_dtype(dtype)) return Status::kInvalidArgument;
  int64_t bound;  // above every size in the layout of any form
  if (!checked_mul(numel, 16, &bound)) return Status::kOverflow;
  SparsePlan p;
  p.numel = numel;
  p.dtype = dtype;
  p.element_bytes = dtype_bytes(dtype);
  p.unit_count = ceil_div(numel, kSparseUnit);
  p.block_count = ceil_div(numel, kSparseBlock);
  *plan = p;
  return Status::kOk;
}

Status set_sparse_layout(int64_t nnz, SparseForm form, SparsePlan* plan) noexcept {
  if (nnz < 0 || nnz > plan->numel) return Status::kInvalidArgument;
  const int64_t after_counts = plan->unit_count * 2;
  SparsePlan p = *plan;
  p.nnz = nnz;
  p.form = form;
  p.values_bytes = nnz * p.element_bytes;
  p.mask_offset = p.block_counts_offset = p.full_bits_offset = p.positions_offset = after_counts;
  switch (form) {
    case SparseForm::kBitmask:
      p.index_bytes = p.mask_offset + ceil_div(p.numel, 8);
      break;
    case SparseForm::kBlock8:
      p.full_bits_offset = p.block_counts_offset + p.block_count;
      p.positions_offset = p.full_bits_offset + ceil_div(p.block_count, 8);
      p.index_bytes = p.positions_offset + nnz;
      break;
    case SparseForm::kUnit16:
      p.index_bytes = p.positions_offset + nnz * 2;
      break;
    default:
      return Status::kInvalidArgument;
  }
  *plan = p;
  return Status::kOk;
}

SparseForm sparse_smallest_form(const SparsePlan& plan, int64_t nnz) noexcept {
  SparsePlan trial = plan;
  SparseForm best = SparseForm::kBitmask;
  int64_t best_bytes = INT64_MAX;
  for (int form = 0; form < kSparseFormCount; ++form) {
    set_sparse_layout(nnz, static_cast<SparseForm>(form), &trial);
    if (trial.index_bytes < best_bytes) {
      best = trial.form;
      best_bytes = trial.index_bytes;
    }
  }
  return best;
}

Status sparse_offsets(const SparsePlan& plan, const void* index, int64_t* offsets) noexcept {
  const char* counts = static_cast<const char*>(index);
  int64_t total = 0;
  for (int64_t unit = 0; unit < plan.unit_count; ++unit) {
    uint16_t count;
    std::memcpy(&count, counts + unit * 2, 2);
    if (count > sparse_unit_numel(plan, unit)) return Status::kCorrupt;
    offsets[unit] = total;
    total += count;
  }
  offsets[plan.unit_count] = total;
  return total == plan.nnz ? Status::kOk : Status::kCorrupt;
}

}  // namespace qvlmem
