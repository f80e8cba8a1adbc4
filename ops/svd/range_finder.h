// SPDX-License-Identifier: Apache-2.0
// An orthonormal basis P of (most of) the row space of a matrix A, grown block by block, and A's
// image A P^T in it: A ~ (A P^T) P.
//
// After Halko, Martinsson, Tropp 2011 (sampling, subspace iteration) and Yu, Gu, Li 2018
// (randQB_EI: blocks, each orthogonal to those before, and what is missing told by a difference of
// energies, ||A - A P^T P||^2 = ||A||^2 - ||A P^T||^2, without another look at A). Here the basis
// is one of the rows: the factor that is to be orthonormal is then a product of orthonormal ones,
// and no small singular value is ever divided by. Orthonormalisation is by Gram matrices in
// float64, hence matrix products, as in farPCA (Feng, Yu, Xie, Tang 2023).
//
// All is computed in A's dtype, float32 or float64, but for Gram matrices and energies. In float32
// a missing energy below about 1e-7 of the whole drowns in rounding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/svd/svd_device.h"

namespace qvlmem::ops {

class RangeFinder {
 public:
  // a [m, n]: finite, unit stride along rows. energy: ||a||^2. The basis starts empty.
  RangeFinder(SvdDevice& device, at::Tensor a, double energy, uint64_t seed);

  // Adds `columns` directions, fewer or none where A has no more to give. Three products of that
  // width with A: the middle one is half a subspace iteration. Waits for the device once, as refine
  // does.
  void grow(int64_t columns);
  // One subspace iteration on the whole basis: two products with A.
  void refine();
  // Adds directions that A does not ask for, up to `size` in all. REQUIRES: size <= min(m, n).
  void pad(int64_t size);
  // Replaces the basis by one of the whole row space.
  void span();

  int64_t size() const { return basis_.size(0); }
  const at::Tensor& basis() const { return basis_; }  // P [size, n]
  const at::Tensor& image() const { return image_; }  // (A P^T)^T [size, m]
  double missing_energy() const;  // ||A - A P^T P||^2 and what rounding may hide of it
  // `rows` samples of what is missing: row i is (A - A P^T P) s_i for random signs s_i, so that
  // the expectation of its square is missing_energy(). One product with A.
  at::Tensor sample_missing(int64_t rows);

 private:
  // Orthonormal rows; behind them, where their count can wait, rows of zeros.
  struct Whitened {
    at::Tensor rows;
    at::Tensor count;  // of the orthonormal ones: float64 and 0-d
  };

  Whitened whiten(const at::Tensor& y, double drop_beside, double drop_below);
  at::Tensor random_rows(int64_t rows);
  void project_out(at::Tensor& rows) const;
  void append(at::Tensor rows);
  // The energy, of either sign, that rounding products and bases to a_'s dtype may cost.
  double rounding() const;

  SvdDevice& device_;
  at::Tensor a_;
  double energy_;
  uint64_t seed_;
  uint16_t stream_ = 0;
  at::Tensor basis_, image_;
  double captured_ = 0;
};

}  // namespace qvlmem::ops
