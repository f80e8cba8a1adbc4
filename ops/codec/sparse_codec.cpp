// SPDX-License-Identifier: Apache-2.0
// The codec `sparse`: values and the smallest of the compact indices.
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>

#include <algorithm>
#include <vector>

#include "kernels/sparse/sparse.h"
#include "ops/backend.h"
#include "ops/base/check.h"
#include "ops/codec/codec.h"
#include "ops/codec/codec_table.h"

namespace qvlmem {
namespace {

SparsePlan plan_of(int64_t numel, at::ScalarType dtype) {
  SparsePlan plan;
  ops::check_status("sparse", "shape",
                    make_sparse_plan(numel, ops::kernel_dtype("sparse", dtype), &plan));
  return plan;
}

// params: the form of the index. parts: index, values.
Payload encode_sparse(const at::Tensor& x, const CompressOptions& options) {
  const SparsePlan plan = plan_of(x.numel(), x.scalar_type());
  const int64_t target = sparse_zero_target(options.sparsity_threshold, plan.numel);
  const ops::SparseParts parts = backend_of("compress", "x", x).sparse_compact(plan, x, target);
  return {{static_cast<int64_t>(parts.form)}, {parts.index, parts.values}};
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

// REQUIRES: check_sparse has passed.
SparsePlan layout_of(const Payload& payload, const TensorInfo& info) {
  SparsePlan plan = plan_of(c10::multiply_integers(info.shape), info.dtype);
  set_sparse_layout(payload.parts[1].numel(), static_cast<SparseForm>(payload.params[0]), &plan);
  return plan;
}

at::Tensor decode_sparse(const Payload& payload, const TensorInfo& info) {
  const at::Tensor &index = payload.parts[0], &values = payload.parts[1];
  return backend_of("decompress", "values", values)
      .sparse_expand(layout_of(payload, info), index, values, info.shape);
}

ErrorMeasure measure_sparse(const at::Tensor& x, const Payload& payload, const TensorInfo& info) {
  const SparsePlan plan = layout_of(payload, info);
  const void* const index = payload.parts[0].const_data_ptr();
  const void* const values = payload.parts[1].const_data_ptr();
  std::vector<int64_t> offsets(plan.unit_count + 1);
  ops::check_status("sparse", "the index", sparse_offsets(plan, index, offsets.data()));
  return ops::measure_error_of_pieces(
      x, {kSparseUnit, [](int64_t i) { return i / kSparseUnit; },
          [](int64_t unit) { return unit * kSparseUnit; },
          [&](int64_t unit) { return unit * kSparseUnit + sparse_unit_numel(plan, unit); },
          [&](int64_t unit, void* to) {
            ops::check_status(
                "sparse", "the index",
                sparse_decode_unit_cpu(plan, index, offsets.data(), values, unit, to));
          }});
}

at::Tensor sparse_to_coo(const Payload& payload, const TensorInfo& info) {
  const SparsePlan plan = layout_of(payload, info);
  const at::Tensor values = payload.parts[1].contiguous();
  const at::Tensor indices = backend_of("to_sparse_coo", "values", values)
                                 .sparse_coo_indices(plan, payload.parts[0], info.shape);
  // A copy: torch's tensors may be changed in place, what is compressed may not.
  return at::_sparse_coo_tensor_unsafe(indices, values.clone(), info.shape,
                                       values.options().layout(at::kSparse))
      ._coalesced_(true);
}

int64_t least_bytes_sparse(const at::Tensor& x, const CompressOptions& options, int64_t) {
  SparsePlan plan = plan_of(x.numel(), x.scalar_type());
  const int64_t target = sparse_zero_target(options.sparsity_threshold, plan.numel);
  const int64_t nonzero = backend_of("compress", "x", x).sparse_nonzero(plan, x);
  const int64_t nnz = std::min(nonzero, plan.numel - target);
  set_sparse_layout(nnz, sparse_smallest_form(plan, nnz), &plan);
  return plan.index_bytes + plan.values_bytes;
}

}  // namespace

const Codec kSparseCodec{CodecId::kSparse, "sparse",      false,        false,
                         encode_sparse,    decode_sparse, check_sparse, least_bytes_sparse,
                         sparse_to_coo,    nullptr,       false,        measure_sparse};

}  // namespace qvlmem
