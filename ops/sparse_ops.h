// SPDX-License-Identifier: Apache-2.0
// qvlmem::sparsify and qvlmem::densify. What is stored, and how: kernels/sparse/sparse.h. On CUDA
// both wait for the device: for the number of elements, and for whether indices are good; while
// a stream is captured those that are not are not refused (ops/base/device_flag.h).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <tuple>

#include "kernels/sparse/sparse.h"

namespace qvlmem::ops {

// x: float32, float16 or bfloat16, any shape and strides. Returns sorted flat positions (int32;
// int64 above 2^31 elements) and values (x's dtype). ValueError for a threshold outside [0, 1] and,
// where `prune`, for values that are not finite; TypeError for the dtype.
std::tuple<at::Tensor, at::Tensor> sparsify_cpu(const at::Tensor& x, double sparsity_threshold,
                                                bool prune);
std::tuple<at::Tensor, at::Tensor> sparsify_cuda(const at::Tensor& x, double sparsity_threshold,
                                                 bool prune);

// The dense tensor, contiguous, of `shape` and values' dtype. indices: int32 or int64, strictly
// increasing and within the shape's elements, else ValueError that says which one is not.
at::Tensor densify_cpu(const at::Tensor& indices, const at::Tensor& values, at::IntArrayRef shape);
at::Tensor densify_cuda(const at::Tensor& indices, const at::Tensor& values, at::IntArrayRef shape);
at::Tensor densify_meta(const at::Tensor& indices, const at::Tensor& values,
                        c10::SymIntArrayRef shape);

// The checked arguments of a call, dense: what every back end begins with.
struct SparsifyCall {
  SparsePlan plan;
  at::Tensor x;
  int64_t target;  // elements that are not stored, at least
};
SparsifyCall prepare_sparsify(const at::Tensor& x, double sparsity_threshold, bool prune);
struct DensifyCall {
  SparsePlan plan;
  at::Tensor indices, values, y;  // y: not yet written
};
DensifyCall prepare_densify(const at::Tensor& indices, const at::Tensor& values,
                            at::IntArrayRef shape);

// ValueError that says which index is not what it must be. indices: int32 or int64, flat.
[[noreturn]] void throw_bad_index(const at::Tensor& indices, int64_t numel);

}  // namespace qvlmem::ops
