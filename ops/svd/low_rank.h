// SPDX-License-Identifier: Apache-2.0
// Low-rank factorisation of a matrix to a wanted energy or rank, and a cheap bound on what rank
// an energy takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ops/svd/svd_device.h"
#include "ops/svd/svd_matrix.h"

namespace qvlmem::ops {

// x ~ u v, of x's dtype. u [m, r] carries the singular values, v [r, n] has orthonormal rows: the
// leading r singular triples, but for what the range finder misses.
struct LowRank {
  at::Tensor u, v;
};

// The largest finite value of float32, float16 or bfloat16.
double largest_value(at::ScalarType dtype);

// The dtype in which an energy can be told: float64 where what may be missing is so little that in
// float32 rounding would hide it.
at::ScalarType energy_dtype(double energy);

// The smallest rank that keeps the share `energy` in (0, 1] of ||x||^2 > 0; nothing where that is
// above max_rank, as early as that is clear: a limit that is met changes no bit. A share within
// 2^-44 of 1, which is a relative error of two roundings of float32, counts as 1.
//
// The basis grows until the energy is reached, at most doubling, and then grows further or is
// refined until the rank is within 5% (or one) of the smallest. No full decomposition, but where
// that is cheapest: min(m, n) <= 64, or a rank that needs more than half of min(m, n); there the
// rank is the smallest.
//
// This and what follows raise SvdMatrix::Changed, and ValueError for NaN and infinities, where the
// matrix is not known yet; the factorisations ValueError where u would overflow x's dtype. a is
// of energy_dtype(energy).
std::optional<LowRank> factor_to_energy(SvdDevice& device, SvdMatrix& matrix, double energy,
                                        int64_t max_rank, uint64_t seed);

// The leading `rank` in [1, min(m, n)]. Waits for the device once, unless x has no such rank.
LowRank factor_to_rank(SvdDevice& device, SvdMatrix& matrix, int64_t rank, uint64_t seed);

// A rank that is surely needed to keep the share `energy`, but for sampling. With P a basis of part
// of the row space and R = A - A P^T P, rank k keeps at most ||A P^T||^2 and the k largest of R's
// squared singular values, which sum to at most sqrt(k) ||R R^T||, and that norm is sampled. The
// bound is close where the spectrum of R is flat (there is no low rank, or one that ends at once),
// and too low where it falls slowly. One product of A with 32 columns where P is empty, which does
// for matrices without structure; four more otherwise; one wait for the device, or two. a is
// of float32.
int64_t least_rank(SvdDevice& device, SvdMatrix& matrix, double energy, uint64_t seed);

}  // namespace qvlmem::ops
