// SPDX-License-Identifier: Apache-2.0
// qvlmem::svd and qvlmem::svd_reconstruct: x, as a matrix [m, n] of all but the last dimension by
// the last, as u v with u [m, r] and v [r, n] of x's dtype. How: ops/svd/low_rank.h.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <optional>
#include <tuple>

namespace qvlmem::ops {

// x: float32, float16 or bfloat16, any shape and strides, finite. The rank r is `rank`, or the
// smallest that keeps `energy` of the sum of squared singular values (adaptive_rank), or the
// largest at which u and v have at most compression_ratio of x's bytes (at least 1, where not even
// one column has so little). 0 where x is empty; 1 where it is all zero, unless `rank` says
// otherwise. The same bits for a seed on one device, whatever the number of threads. On CUDA it
// waits for the device once for each size of basis that it tries, which is once in all where the
// rank is given or below some 30 (ops/svd/range_finder.h), and so not while a graph is captured.
//
// ValueError for arguments out of range, values that are not finite, and where u, which carries the
// singular values, would overflow x's dtype; TypeError for the dtype.
std::tuple<at::Tensor, at::Tensor> svd(const at::Tensor& x, bool adaptive_rank,
                                       double compression_ratio, double energy,
                                       std::optional<int64_t> rank, int64_t seed);

// u v, contiguous, of `shape` and `dtype` (float32 where none is given). Finite factors give finite
// values: what is beyond dtype becomes its largest.
at::Tensor svd_reconstruct_cpu(const at::Tensor& u, const at::Tensor& v, at::IntArrayRef shape,
                               std::optional<at::ScalarType> dtype);
at::Tensor svd_reconstruct_cuda(const at::Tensor& u, const at::Tensor& v, at::IntArrayRef shape,
                                std::optional<at::ScalarType> dtype);
at::Tensor svd_reconstruct_meta(const at::Tensor& u, const at::Tensor& v, c10::SymIntArrayRef shape,
                                std::optional<at::ScalarType> dtype);

// Raises unless u and v are factors of a tensor of this shape.
void check_svd_factors(const char* op, const at::Tensor& u, const at::Tensor& v,
                       at::IntArrayRef shape);

// The checked arguments of svd_reconstruct, dense, and its output, not yet written.
struct ReconstructCall {
  at::Tensor u, v, y;
};
ReconstructCall prepare_svd_reconstruct(const at::Tensor& u, const at::Tensor& v,
                                        at::IntArrayRef shape, std::optional<at::ScalarType> dtype);

// svd by energy, but ValueError where u and v would take more than most_bytes: sooner than
// finding them takes, mostly.
std::tuple<at::Tensor, at::Tensor> svd_within(const at::Tensor& x, double energy,
                                              int64_t most_bytes, int64_t seed);

// Bytes that u and v take at least to keep `energy` of x: a bound, found in a small part of what
// svd takes. Above what anything else takes, svd need not be tried. x: as for svd.
int64_t svd_least_bytes(const at::Tensor& x, double energy);

}  // namespace qvlmem::ops
