// SPDX-License-Identifier: Apache-2.0
// qvlmem::sparsify and qvlmem::densify, and the codec `sparse`. What is stored, and how:
// kernels/sparse/sparse.h.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <tuple>

namespace qvlmem::ops {

// x: float32, float16 or bfloat16, any shape and strides. Returns sorted flat positions (int32;
// int64 above 2^31 elements) and values (x's dtype). ValueError for a threshold outside [0, 1] and,
// where `prune`, for values that are not finite; TypeError for the dtype.
std::tuple<at::Tensor, at::Tensor> sparsify_cpu(const at::Tensor& x, double sparsity_threshold,
                                                bool prune);

// The dense tensor, contiguous, of `shape` and values' dtype. indices: int32 or int64, strictly
// increasing and within the shape's elements, else ValueError that says which one is not.
at::Tensor densify_cpu(const at::Tensor& indices, const at::Tensor& values, at::IntArrayRef shape);
at::Tensor densify_meta(const at::Tensor& indices, const at::Tensor& values,
                        c10::SymIntArrayRef shape);

}  // namespace qvlmem::ops
