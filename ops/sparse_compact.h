// SPDX-License-Identifier: Apache-2.0
// The parts of the codec `sparse`, on one device: values and a compact index
// (kernels/sparse/sparse.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/sparse/sparse.h"

namespace qvlmem::ops {

struct SparseParts {
  SparseForm form;
  at::Tensor index, values;
};

// x (of plan's numel and dtype, any strides) but for its zeros and its smallest elements, so that
// `target` are not stored. ValueError in the name of compress where it holds NaN or infinities.
SparseParts sparse_compact_cpu(const SparsePlan& plan, const at::Tensor& x, int64_t target);
SparseParts sparse_compact_cuda(const SparsePlan& plan, const at::Tensor& x, int64_t target);

// The dense tensor. plan: with its layout, which the parts have. ValueError where the index is
// damaged, unless a stream is captured (ops/base/device_flag.h).
at::Tensor sparse_expand_cpu(const SparsePlan& plan, const at::Tensor& index,
                             const at::Tensor& values, at::IntArrayRef shape);
at::Tensor sparse_expand_cuda(const SparsePlan& plan, const at::Tensor& index,
                              const at::Tensor& values, at::IntArrayRef shape);

// Elements of x that are not zero.
int64_t sparse_nonzero_cpu(const SparsePlan& plan, const at::Tensor& x);
int64_t sparse_nonzero_cuda(const SparsePlan& plan, const at::Tensor& x);

// Where the stored elements stand, as torch's COO tensors have it: int64 [dimensions, nnz]. Refuses
// what sparse_expand refuses.
at::Tensor sparse_coo_indices_cpu(const SparsePlan& plan, const at::Tensor& index,
                                  at::IntArrayRef shape);
at::Tensor sparse_coo_indices_cuda(const SparsePlan& plan, const at::Tensor& index,
                                   at::IntArrayRef shape);

// Indices of that shape, not yet written, and where flat positions go: into the last row, or, for a
// 0-d tensor, which has none, aside, for they are read all the same to be checked.
struct CooIndices {
  at::Tensor indices, flat;
};
CooIndices empty_coo_indices(const SparsePlan& plan, const at::Tensor& index,
                             at::IntArrayRef shape);

}  // namespace qvlmem::ops
