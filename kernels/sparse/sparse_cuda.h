// SPDX-License-Identifier: Apache-2.0
// sparsify and densify on CUDA: the layout and the bytes of sparse.h, on device memory.
//
// Storing takes two steps, because how much is stored must reach the host between them:
// sparse_find_cuda says how many elements there are, the others write them.
#pragma once

#include "kernels/base/cuda.h"
#include "kernels/sparse/sparse.h"

namespace qvlmem {

// What the host needs of sparse_find_cuda, in device memory.
struct SparseFound {
  int64_t nnz;
  int64_t non_finite;  // 1 where x holds NaN or an infinity and `prune` was set, else 0
};

// Bytes of device memory, aligned to 16, that sparse_find_cuda fills and the writers read.
int64_t sparse_workspace_bytes(const SparsePlan& plan) noexcept;

// Finds which elements of x are stored: those that are not zero but for the smallest ones, so that
// `target` elements are not stored (as sparse_zero_target says; 0 keeps all). prune: -0.0 is a zero
// too. REQUIRES: 0 <= target <= plan.numel, 0 unless prune.
cudaError_t sparse_find_cuda(const SparsePlan& plan, const void* x, bool prune, int64_t target,
                             SparseFound* found, void* workspace, cudaStream_t stream) noexcept;

// Writes the elements that were found in x: their positions (int64 where
// sparse_wide_indices(plan.numel), else int32) and values, nnz of each. Where x has changed since,
// what is written means nothing, but lies inside.
cudaError_t sparse_store_cuda(const SparsePlan& plan, const void* x, const void* workspace,
                              void* indices, void* values, cudaStream_t stream) noexcept;

// The same as a compact form. REQUIRES: set_sparse_layout with the nnz that was found; index
// aligned to 2.
cudaError_t sparse_encode_cuda(const SparsePlan& plan, const void* x, const void* workspace,
                               void* index, void* values, cudaStream_t stream) noexcept;

// Decodes all of y (plan.numel elements) from nnz COO entries. Any bytes are safe as indices:
// *corrupt becomes 1 (the caller sets it to 0 before) where they are not strictly increasing within
// 0..plan.numel - 1; the tiles of y, 4096 elements each, where that shows become NaN, bytes of
// 0xff. REQUIRES: nnz <= plan.numel.
cudaError_t sparse_densify_cuda(const SparsePlan& plan, const int32_t* indices, const void* values,
                                int64_t nnz, void* y, int32_t* corrupt,
                                cudaStream_t stream) noexcept;
cudaError_t sparse_densify_cuda(const SparsePlan& plan, const int64_t* indices, const void* values,
                                int64_t nnz, void* y, int32_t* corrupt,
                                cudaStream_t stream) noexcept;

// Bytes of device memory, aligned to 8, that sparse_decode_cuda and sparse_positions_cuda need.
int64_t sparse_decode_workspace_bytes(const SparsePlan& plan) noexcept;

// The same from a compact form, aligned to 2. Any bytes are safe as index: *corrupt becomes 1 where
// sparse_offsets or sparse_decode_cpu refuse them, and what that covers of y NaN: all of it where
// the counts of units contradict the rest, else tiles.
cudaError_t sparse_decode_cuda(const SparsePlan& plan, const void* index, const void* values,
                               void* y, int32_t* corrupt, void* workspace,
                               cudaStream_t stream) noexcept;

// Flat positions of a compact form's stored elements, plan.nnz of them: COO of an index. *corrupt
// and workspace as for sparse_decode_cuda; positions of units that are refused stay as they were.
cudaError_t sparse_positions_cuda(const SparsePlan& plan, const void* index, int64_t* positions,
                                  int32_t* corrupt, void* workspace, cudaStream_t stream) noexcept;

// Flat positions in the last of `dims` rows of nnz become torch's, a row for each dimension of
// `shape` (in host memory, dims >= 1). A division of each element for each dimension: what cuSPARSE
// converts between are matrices, dense, CSR and COO, none of them n-dimensional.
cudaError_t sparse_split_positions_cuda(const int64_t* shape, int64_t dims, int64_t nnz,
                                        int64_t* rows, cudaStream_t stream) noexcept;

}  // namespace qvlmem
