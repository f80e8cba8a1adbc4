// SPDX-License-Identifier: Apache-2.0
// The codec `sparse`: values and the smallest of the compact indices.
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/empty.h>

#include <atomic>
#include <memory>
#include <numeric>

#include "kernels/sparse/sparse.h"
#include "ops/base/check.h"
#include "ops/base/parallel.h"
#include "ops/codec/codec.h"
#include "ops/codec/codec_table.h"
#include "ops/sparse_prune.h"

namespace qvlmem {
namespace {

using ops::kSparseGrain;
using ops::parallel_units;

SparsePlan plan_of(int64_t numel, at::ScalarType dtype) {
  SparsePlan plan;
  ops::check_status("sparse", "shape",
                    make_sparse_plan(numel, ops::kernel_dtype("sparse", dtype), &plan));
  return plan;
}

// Stored elements before each unit, and in all.
std::vector<int64_t> count_stored(const SparsePlan& plan, const SparseRule& rule, const void* x) {
  std::vector<int64_t> offsets(plan.unit_count + 1);
  parallel_units(plan.unit_count, kSparseGrain, [&](int64_t begin, int64_t end) {
    sparse_count_kept_cpu(plan, rule, x, begin, end, &offsets[begin + 1]);
  });
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  return offsets;
}

// params: the form of the index. parts: index, values.
Payload encode_sparse(const at::Tensor& x, const CompressOptions& options) {
  SparsePlan plan = plan_of(x.numel(), x.scalar_type());
  const at::Tensor dense = x.contiguous();
  const void* data = dense.const_data_ptr();
  const int64_t target = sparse_zero_target(options.sparsity_threshold, plan.numel);
  SparseRule rule = sparse_nonzero_rule(plan.dtype, true);
  std::vector<int64_t> offsets = count_stored(plan, rule, data);
  if (offsets.back() > plan.numel - target) {
    SparseKeyRange range;
    ops::probably_sparse(plan, data, target, &range);
    rule = ops::prune_rule(plan, data, target, range);
    offsets = count_stored(plan, rule, data);
  }
  ops::check_status(
      "sparse", "x",
      set_sparse_layout(offsets.back(), sparse_smallest_form(plan, offsets.back()), &plan));
  at::Tensor index = at::empty({plan.index_bytes}, x.options().dtype(at::kByte));
  at::Tensor values = at::empty({plan.nnz}, x.options());
  uint8_t* index_data = index.mutable_data_ptr<uint8_t>();
  void* value_data = values.mutable_data_ptr();
  std::atomic<Status> worst{Status::kOk};
  parallel_units(plan.unit_count, kSparseGrain, [&](int64_t begin, int64_t end) {
    const auto scratch = std::make_unique<SparseScratch>();
    const Status status = sparse_encode_cpu(plan, rule, data, begin, end, offsets.data(),
                                            index_data, value_data, scratch.get());
    if (status != Status::kOk && worst != Status::kNonFinite) worst = status;
  });
  if (worst == Status::kNonFinite) ops::throw_non_finite("compress", x);
  TORCH_CHECK_VALUE(worst == Status::kOk, "qvlmem::compress: x changed while it was read");
  return {{static_cast<int64_t>(plan.form)}, {index, values}};
}

void check_sparse(const Payload& payload, const TensorInfo& info) {
  check_payload_size("sparse", payload, 1, 2);
  const at::Tensor& index = payload.parts[0];
  const at::Tensor& values = payload.parts[1];
  ops::check_dtype("sparse", "the index", index, at::kByte);
  ops::check_dtype("sparse", "the values", values, info.dtype);
  TORCH_CHECK_VALUE(values.dim() == 1, "qvlmem::sparse: expected the values to be flat, got ",
                    ops::describe(values));
  SparsePlan plan = plan_of(ops::check_sizes("sparse", info.shape, 8), info.dtype);
  const int64_t form = payload.params[0];
  TORCH_CHECK_VALUE(form >= 0 && form < kSparseFormCount, "qvlmem::sparse: expected a form below ",
                    kSparseFormCount, ", got ", form);
  const Status status = set_sparse_layout(values.numel(), static_cast<SparseForm>(form), &plan);
  TORCH_CHECK_VALUE(status == Status::kOk, "qvlmem::sparse: expected at most ", plan.numel,
                    " values, got ", values.numel());
  ops::check_shape("sparse", "the index", index, {plan.index_bytes});
}

// A payload that check_sparse has passed, ready to be read unit by unit.
class SparseReader {
 public:
  SparseReader(const Payload& payload, const TensorInfo& info)
      : plan_(plan_of(c10::multiply_integers(info.shape), info.dtype)),
        index_(payload.parts[0].contiguous()),
        values_(payload.parts[1].contiguous()) {
    set_sparse_layout(values_.numel(), static_cast<SparseForm>(payload.params[0]), &plan_);
    offsets_.resize(plan_.unit_count + 1);
    refuse_unless(sparse_offsets(plan_, index(), offsets_.data()));
  }

  const SparsePlan& plan() const { return plan_; }
  const at::Tensor& values() const { return values_; }

  // Calls f(begin, end, index, offsets), which returns a Status, for all units.
  template <class F>
  void for_units(const F& f) const {
    std::atomic<bool> refused{false};
    parallel_units(plan_.unit_count, kSparseGrain, [&](int64_t begin, int64_t end) {
      const Status status = f(begin, end, index(), offsets_.data());
      if (status != Status::kOk) refused.store(true, std::memory_order_relaxed);
    });
    refuse_unless(refused ? Status::kCorrupt : Status::kOk);
  }

 private:
  const void* index() const { return index_.const_data_ptr(); }
  static void refuse_unless(Status status) { ops::check_status("sparse", "the index", status); }

  SparsePlan plan_;
  at::Tensor index_, values_;
  std::vector<int64_t> offsets_;
};

at::Tensor decode_sparse(const Payload& payload, const TensorInfo& info) {
  const SparseReader reader(payload, info);
  at::Tensor y = at::empty(info.shape, payload.parts[1].options());
  const void* values = reader.values().const_data_ptr();
  void* data = y.mutable_data_ptr();
  reader.for_units([&](int64_t begin, int64_t end, const void* index, const int64_t* offsets) {
    return sparse_decode_cpu(reader.plan(), index, offsets, values, begin, end, data);
  });
  return y;
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

at::Tensor sparse_to_coo(const Payload& payload, const TensorInfo& info) {
  const SparseReader reader(payload, info);
  const int64_t nnz = reader.plan().nnz, dims = static_cast<int64_t>(info.shape.size());
  at::Tensor indices = at::empty({dims, nnz}, payload.parts[0].options().dtype(at::kLong));
  // A 0-d tensor has no row for positions; they are read all the same, to be checked.
  at::Tensor flat = dims > 0 ? indices[dims - 1] : at::empty({nnz}, indices.options());
  int64_t* positions = flat.mutable_data_ptr<int64_t>();
  reader.for_units([&](int64_t begin, int64_t end, const void* index, const int64_t* offsets) {
    return sparse_positions_cpu(reader.plan(), index, offsets, begin, end, positions);
  });
  if (nnz > 0 && dims > 0) {
    split_positions(info.shape, nnz, indices.mutable_data_ptr<int64_t>());
  }
  // A copy: torch's tensors may be changed in place, what is compressed may not.
  return at::_sparse_coo_tensor_unsafe(indices, reader.values().clone(), info.shape,
                                       reader.values().options().layout(at::kSparse))
      ._coalesced_(true);
}

int64_t least_bytes_sparse(const at::Tensor& x, const CompressOptions& options) {
  SparsePlan plan = plan_of(x.numel(), x.scalar_type());
  const at::Tensor dense = x.contiguous();
  const int64_t target = sparse_zero_target(options.sparsity_threshold, plan.numel);
  const SparseRule rule = sparse_nonzero_rule(plan.dtype, true);
  const int64_t nonzero = count_stored(plan, rule, dense.const_data_ptr()).back();
  const int64_t nnz = std::min(nonzero, plan.numel - target);
  set_sparse_layout(nnz, sparse_smallest_form(plan, nnz), &plan);
  return plan.index_bytes + plan.values_bytes;
}

}  // namespace

const Codec kSparseCodec{
    CodecId::kSparse, "sparse",           false,        false, false, encode_sparse, decode_sparse,
    check_sparse,     least_bytes_sparse, sparse_to_coo};

}  // namespace qvlmem
