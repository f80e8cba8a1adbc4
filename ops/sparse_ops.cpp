// SPDX-License-Identifier: Apache-2.0
#include "ops/sparse_ops.h"

#include <ATen/ops/empty.h>

#include <atomic>
#include <memory>
#include <utility>

#include "ops/base/check.h"
#include "ops/base/output.h"
#include "ops/base/parallel.h"
#include "ops/base/reserved_bytes.h"
#include "ops/base/turns.h"
#include "ops/sparse_prune.h"

namespace qvlmem::ops {
namespace {

// Gathers units into COO in one pass over x, although where a unit's entries go is known only when
// the units before it are gathered: threads take units in order, gather each into a scratch of
// their own, wait for their turn to be told a place, and copy the entries there while they gather
// the next.
class CooWriter {
 public:
  // Room for `capacity` entries.
  CooWriter(const SparsePlan& plan, const void* x, int64_t capacity)
      : plan_(plan),
        x_(x),
        capacity_(capacity),
        index_dtype_(sparse_wide_indices(plan.numel) ? at::kLong : at::kInt),
        index_bytes_(static_cast<int64_t>(c10::elementSize(index_dtype_))),
        indices_(capacity * index_bytes_),
        values_(capacity * plan.element_bytes) {}

  // False where there are more entries than room; what was written then means nothing.
  bool write(const SparseRule& rule) {
    Turns turns(plan_.unit_count);
    end_ = 0;
    overflowed_ = false;
    const int64_t workers =
        std::min<int64_t>(at::get_num_threads(), ceil_div(plan_.unit_count, kSparseGrain));
    parallel_units(workers, 1, [&](int64_t, int64_t) { work(rule, &turns); });
    return !overflowed_;
  }

  bool refused() const { return refused_; }

  std::tuple<at::Tensor, at::Tensor> take() {
    return {indices_.take(end_, index_dtype_), values_.take(end_, torch_dtype(plan_.dtype))};
  }

 private:
  void work(const SparseRule& rule, Turns* turns) {
    // Not make_unique, which would fill what a small tensor leaves untouched.
    const std::unique_ptr<SparseScratch[]> scratches(new SparseScratch[2]);
    SparseScratch *scratch = &scratches[0], *other = &scratches[1];
    SparsePlacing placing;  // of the unit before, which is in `other`
    for (int64_t unit; (unit = turns->take()) < plan_.unit_count; std::swap(scratch, other)) {
      sparse_gather_and_place_cpu(plan_, rule, x_, unit, placing, indices_.data(), values_.data(),
                                  scratch);
      if (sparse_refuses(plan_, rule, *scratch)) refused_ = true;
      turns->wait(unit);
      const int64_t begin = end_;
      const int64_t likely = expected_end(0, begin, unit, plan_.unit_count);
      indices_.expect(likely * index_bytes_);
      values_.expect(likely * plan_.element_bytes);
      const bool fits = scratch->count <= capacity_ - begin;
      if (fits) {
        end_ = begin + scratch->count;
      } else {
        overflowed_ = true;
        turns->stop();
      }
      turns->pass(unit);
      placing = fits && !overflowed_ ? SparsePlacing{scratch, unit, begin} : SparsePlacing{};
    }
    sparse_place_cpu(plan_, placing, indices_.data(), values_.data());
  }

  const SparsePlan& plan_;
  const void* x_;
  const int64_t capacity_;
  const at::ScalarType index_dtype_;
  const int64_t index_bytes_;
  ReservedBytes indices_, values_;
  int64_t end_ = 0;  // belongs to whose turn it is
  std::atomic<bool> overflowed_{false}, refused_{false};
};

void check_threshold(const char* op, double sparsity_threshold) {
  TORCH_CHECK_VALUE(sparsity_threshold >= 0.0 && sparsity_threshold <= 1.0, "qvlmem::", op,
                    ": expected sparsity_threshold to be in [0, 1], got ", sparsity_threshold);
}

SparsePlan make_plan(const char* op, int64_t numel, at::ScalarType dtype) {
  SparsePlan plan;
  check_status(op, "x", make_sparse_plan(numel, kernel_dtype(op, dtype), &plan));
  return plan;
}

void check_coo(const at::Tensor& indices, const at::Tensor& values) {
  check_dense("densify", "indices", indices);
  check_dense("densify", "values", values);
  TORCH_CHECK_TYPE(indices.scalar_type() == at::kInt || indices.scalar_type() == at::kLong,
                   "qvlmem::densify: expected indices to be int32 or int64, got ",
                   describe(indices));
  const at::ScalarType dtype = values.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
                   "qvlmem::densify: expected values to be float32, float16 or bfloat16, got ",
                   describe(values));
  TORCH_CHECK_VALUE(indices.dim() == 1, "qvlmem::densify: expected indices to be flat, got ",
                    describe(indices));
  TORCH_CHECK_VALUE(values.dim() == 1, "qvlmem::densify: expected values to be flat, got ",
                    describe(values));
  TORCH_CHECK_VALUE(indices.device() == values.device(),
                    "qvlmem::densify: expected indices and values on one device, got ",
                    indices.device(), " and ", values.device());
}

template <class Index>
[[noreturn]] void throw_bad_index(const Index* indices, int64_t nnz, int64_t numel) {
  for (int64_t k = 0; k < nnz; ++k) {
    TORCH_CHECK_VALUE(indices[k] >= 0 && indices[k] < numel,
                      "qvlmem::densify: expected indices to be in [0, ", numel, "), got ",
                      indices[k], " at position ", k);
    TORCH_CHECK_VALUE(k == 0 || indices[k - 1] < indices[k],
                      "qvlmem::densify: expected indices to be sorted and distinct, got ",
                      indices[k], " after ", indices[k - 1], " at position ", k);
  }
  TORCH_CHECK_VALUE(false, "qvlmem::densify: indices changed while they were read");
}

// False where the indices are not what they must be.
template <class Index>
bool densify(const DensifyCall& call) {
  const Index* const indices = call.indices.const_data_ptr<Index>();
  const void* const values = call.values.const_data_ptr();
  void* const y = call.y.mutable_data_ptr();
  const int64_t nnz = call.values.numel();
  std::atomic<bool> refused{false};
  parallel_units(call.plan.unit_count, kSparseGrain, [&](int64_t begin, int64_t end) {
    const Status status = sparse_densify_cpu(call.plan, indices, values, nnz, begin, end, y);
    if (status != Status::kOk) refused.store(true, std::memory_order_relaxed);
  });
  return !refused;
}

}  // namespace

SparsifyCall prepare_sparsify(const at::Tensor& x, double sparsity_threshold, bool prune) {
  check_lossy_input("sparsify", x);
  check_threshold("sparsify", sparsity_threshold);
  const SparsePlan plan = make_plan("sparsify", x.numel(), x.scalar_type());
  return {plan, x.contiguous(), prune ? sparse_zero_target(sparsity_threshold, plan.numel) : 0};
}

std::tuple<at::Tensor, at::Tensor> sparsify_cpu(const at::Tensor& x, double sparsity_threshold,
                                                bool prune) {
  const SparsifyCall call = prepare_sparsify(x, sparsity_threshold, prune);
  const SparsePlan& plan = call.plan;
  const void* data = call.x.const_data_ptr();
  CooWriter writer(plan, data, plan.numel - call.target);
  SparseKeyRange range;
  // Where the zeros look enough, the first pass is the only one; where they then are not, or do not
  // look so, the threshold is searched.
  const bool written = probably_sparse(plan, data, call.target, &range) &&
                       writer.write(sparse_nonzero_rule(plan.dtype, prune));
  if (!written && !writer.refused()) {
    const bool fits = writer.write(prune_rule(plan, data, call.target, range));
    TORCH_CHECK_VALUE(fits || writer.refused(), "qvlmem::sparsify: x changed while it was read");
  }
  if (writer.refused()) throw_non_finite("sparsify", x);
  return writer.take();
}

void throw_bad_index(const at::Tensor& indices, int64_t numel) {
  const at::Tensor host = indices.cpu().contiguous();
  if (host.scalar_type() == at::kInt) {
    throw_bad_index(host.const_data_ptr<int32_t>(), host.numel(), numel);
  }
  throw_bad_index(host.const_data_ptr<int64_t>(), host.numel(), numel);
}

DensifyCall prepare_densify(const at::Tensor& indices, const at::Tensor& values,
                            at::IntArrayRef shape) {
  check_coo(indices, values);
  const int64_t numel = check_sizes("densify", shape, 8);
  const int64_t nnz = values.numel();
  TORCH_CHECK_VALUE(indices.numel() == nnz, "qvlmem::densify: expected as many indices as values, ",
                    nnz, ", got ", indices.numel());
  TORCH_CHECK_VALUE(nnz <= numel, "qvlmem::densify: expected at most ", numel,
                    " indices for shape ", shape, ", got ", nnz);
  return {make_plan("densify", numel, values.scalar_type()), indices.contiguous(),
          values.contiguous(), empty_output(shape, values.options())};
}

at::Tensor densify_cpu(const at::Tensor& indices, const at::Tensor& values, at::IntArrayRef shape) {
  const DensifyCall call = prepare_densify(indices, values, shape);
  const bool good =
      indices.scalar_type() == at::kInt ? densify<int32_t>(call) : densify<int64_t>(call);
  if (!good) throw_bad_index(call.indices, call.plan.numel);
  return call.y;
}

at::Tensor densify_meta(const at::Tensor& indices, const at::Tensor& values,
                        c10::SymIntArrayRef shape) {
  check_coo(indices, values);
  return at::empty_symint(shape, values.options());
}

}  // namespace qvlmem::ops
