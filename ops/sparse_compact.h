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

// The flat positions of the stored elements, int64. On the CPU alone. Refuses what
// sparse_expand_cpu refuses. positions: room for plan.nnz.
void sparse_positions_of(const SparsePlan& plan, const at::Tensor& index, int64_t* positions);

}  // namespace qvlmem::ops
