// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstring>

#include "kernels/sparse/sparse_cuda.h"
#include "ops/base/check.h"
#include "ops/base/device_flag.h"
#include "ops/sparse_compact.h"
#include "ops/sparse_ops.h"

namespace qvlmem::ops {
namespace {

// x with what was found in it, ready to be written. The current device must be x's.
class SparseFinding {
 public:
  // Waits for the device. `op` is whom it is for. x: contiguous.
  SparseFinding(const char* op, const SparsePlan& plan, const at::Tensor& x, bool prune,
                int64_t target)
      : plan_(plan), x_(x), workspace_(bytes_like(x, sparse_workspace_bytes(plan))) {
    check_not_capturing(op);
    const at::Tensor found = bytes_like(x, sizeof(SparseFound));
    C10_CUDA_CHECK(sparse_find_cuda(plan, x.const_data_ptr(), prune, target,
                                    static_cast<SparseFound*>(found.mutable_data_ptr()),
                                    workspace_.mutable_data_ptr(),
                                    c10::cuda::getCurrentCUDAStream()));
    const at::Tensor on_host = found.cpu();
    std::memcpy(&found_, on_host.const_data_ptr(), sizeof(found_));
  }

  bool is_finite() const { return found_.non_finite == 0; }
  int64_t nnz() const { return found_.nnz; }

  std::tuple<at::Tensor, at::Tensor> store() const {
    const at::ScalarType index_dtype = sparse_wide_indices(plan_.numel) ? at::kLong : at::kInt;
    const at::Tensor indices = at::empty({nnz()}, x_.options().dtype(index_dtype));
    const at::Tensor values = at::empty({nnz()}, x_.options());
    C10_CUDA_CHECK(sparse_store_cuda(plan_, x_.const_data_ptr(), workspace_.const_data_ptr(),
                                     indices.mutable_data_ptr(), values.mutable_data_ptr(),
                                     c10::cuda::getCurrentCUDAStream()));
    return {indices, values};
  }

  SparseParts encode() const {
    SparsePlan plan = plan_;
    check_status("sparse", "x", set_sparse_layout(nnz(), sparse_smallest_form(plan, nnz()), &plan));
    const at::Tensor index = bytes_like(x_, plan.index_bytes);
    const at::Tensor values = at::empty({nnz()}, x_.options());
    C10_CUDA_CHECK(sparse_encode_cuda(plan, x_.const_data_ptr(), workspace_.const_data_ptr(),
                                      index.mutable_data_ptr(), values.mutable_data_ptr(),
                                      c10::cuda::getCurrentCUDAStream()));
    return {plan.form, index, values};
  }

 private:
  static at::Tensor bytes_like(const at::Tensor& x, int64_t bytes) {
    return at::empty({bytes}, x.options().dtype(at::kByte));
  }

  const SparsePlan plan_;
  const at::Tensor x_, workspace_;
  SparseFound found_{};
};

// Kernels read counts as they lie; a part that came from outside may lie anywhere.
at::Tensor aligned_index(const at::Tensor& index) {
  const at::Tensor bytes = index.contiguous();
  return reinterpret_cast<uintptr_t>(bytes.const_data_ptr()) % 2 == 0 ? bytes : bytes.clone();
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> sparsify_cuda(const at::Tensor& x, double sparsity_threshold,
                                                 bool prune) {
  const c10::cuda::CUDAGuard guard(x.device());
  const SparsifyCall call = prepare_sparsify(x, sparsity_threshold, prune);
  const SparseFinding finding("sparsify", call.plan, call.x, prune, call.target);
  if (!finding.is_finite()) throw_non_finite("sparsify", x);
  return finding.store();
}

at::Tensor densify_cuda(const at::Tensor& indices, const at::Tensor& values,
                        at::IntArrayRef shape) {
  const DensifyCall call = prepare_densify(indices, values, shape);
  const c10::cuda::CUDAGuard guard(values.device());
  const DeviceFlag corrupt(values);
  const auto densify = [&](const auto* positions) {
    C10_CUDA_CHECK(sparse_densify_cuda(call.plan, positions, call.values.const_data_ptr(),
                                       call.values.numel(), call.y.mutable_data_ptr(),
                                       corrupt.data(), c10::cuda::getCurrentCUDAStream()));
  };
  if (call.indices.scalar_type() == at::kInt) {
    densify(call.indices.const_data_ptr<int32_t>());
  } else {
    densify(call.indices.const_data_ptr<int64_t>());
  }
  if (corrupt.read() != 0) throw_bad_index(call.indices, call.plan.numel);
  return call.y;
}

SparseParts sparse_compact_cuda(const SparsePlan& plan, const at::Tensor& x, int64_t target) {
  const c10::cuda::CUDAGuard guard(x.device());
  const SparseFinding finding("compress", plan, x.contiguous(), true, target);
  if (!finding.is_finite()) throw_non_finite("compress", x);
  return finding.encode();
}

int64_t sparse_nonzero_cuda(const SparsePlan& plan, const at::Tensor& x) {
  const c10::cuda::CUDAGuard guard(x.device());
  return SparseFinding("compress", plan, x.contiguous(), true, 0).nnz();
}

at::Tensor sparse_expand_cuda(const SparsePlan& plan, const at::Tensor& index,
                              const at::Tensor& values, at::IntArrayRef shape) {
  const c10::cuda::CUDAGuard guard(values.device());
  const at::Tensor bytes = aligned_index(index);
  const at::Tensor stored = values.contiguous();
  const at::Tensor y = at::empty(shape, values.options());
  const at::Tensor workspace =
      at::empty({sparse_decode_workspace_bytes(plan)}, index.options().dtype(at::kByte));
  const DeviceFlag corrupt(values);
  C10_CUDA_CHECK(sparse_decode_cuda(
      plan, bytes.const_data_ptr(), stored.const_data_ptr(), y.mutable_data_ptr(), corrupt.data(),
      workspace.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  check_status("sparse", "the index", corrupt.read() != 0 ? Status::kCorrupt : Status::kOk);
  return y;
}

// Indices that nobody has checked must not reach torch's operators: so it waits.
at::Tensor sparse_coo_indices_cuda(const SparsePlan& plan, const at::Tensor& index,
                                   at::IntArrayRef shape) {
  const c10::cuda::CUDAGuard guard(index.device());
  check_not_capturing("to_sparse_coo");
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor bytes = aligned_index(index);
  const CooIndices coo = empty_coo_indices(plan, index, shape);
  const at::Tensor workspace =
      at::empty({sparse_decode_workspace_bytes(plan)}, index.options().dtype(at::kByte));
  const DeviceFlag corrupt(index);
  C10_CUDA_CHECK(sparse_positions_cuda(plan, bytes.const_data_ptr(),
                                       coo.flat.mutable_data_ptr<int64_t>(), corrupt.data(),
                                       workspace.mutable_data_ptr(), stream));
  if (!shape.empty()) {
    C10_CUDA_CHECK(sparse_split_positions_cuda(shape.data(), coo.indices.size(0), plan.nnz,
                                               coo.indices.mutable_data_ptr<int64_t>(), stream));
  }
  check_status("sparse", "the index", corrupt.read() != 0 ? Status::kCorrupt : Status::kOk);
  return coo.indices;
}

}  // namespace qvlmem::ops
