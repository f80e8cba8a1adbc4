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
//
// Waits. What the device finds is left there until the host asks for a part of it, and then comes
// in one copy with all else that is known by then: A's scan, how many directions the last block
// had and what they hold, the spectrum where it is expected to be asked for. That is one wait for
// each size of basis that is tried. It cannot be one in all, for how wide the next block is made
// (and whether there is one) depends on what the last one left missing, and a width is a size of
// memory and of products, which the host must know.
//
// Memory. Beside x: P and A P^T, in which all is computed in place, and a panel. Where P is the
// unit vectors, A P^T is x itself, or a copy where A is not x.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "ops/svd/svd_device.h"
#include "ops/svd/svd_matrix.h"

namespace qvlmem::ops {

// The eigenvalues of (A P^T)^T (A P^T), the squares of the singular values that P holds, of which
// the host has as many as P has rows, and its eigenvectors.
struct Spectrum {
  Eigen eigen;
  std::vector<double> values;
};

class RangeFinder {
 public:
  // The basis starts empty. Both arguments must outlive this.
  RangeFinder(SvdDevice& device, SvdMatrix& matrix, uint64_t seed);

  // Adds `columns` directions, fewer or none where A has no more to give. Three products of that
  // width with A: the middle one is half a subspace iteration.
  void grow(int64_t columns);
  // One subspace iteration on the whole basis: two products with A.
  void refine();
  // Adds directions that A does not ask for, up to `size` in all. REQUIRES: size <= min(m, n).
  void pad(int64_t size);
  // Replaces the basis by one of the whole row space.
  void span();

  // Has the next wait bring the spectrum too. Nothing where nothing is waited for.
  void expect_spectrum();

  // These wait where the device has found what the host does not know yet. SvdMatrix::Changed, and
  // ValueError for NaN and infinities, from the first that does.
  int64_t size();
  double energy();          // ||A||^2
  double missing_energy();  // ||A - A P^T P||^2 and what rounding may hide of it
  const Spectrum& spectrum();
  std::vector<double> read(const at::Tensor& also);  // of float64, in the same copy

  // (A P^T)^T [size, m].
  at::Tensor image();
  // map P, by columns in panels into out [rows, n]: of any dtype. map [rows, size].
  void multiply_basis(at::Tensor& out, const at::Tensor& map);
  at::Tensor basis();  // P [size, n]
  // `rows` samples of what is missing: row i is (A - A P^T P) s_i for random signs s_i, so that
  // the expectation of its square is missing_energy(). One product with A.
  at::Tensor sample_missing(int64_t rows);

 private:
  // The rows of a block, of which the first are orthonormal and the others, where their count must
  // be waited for, zero.
  struct Block {
    int64_t rows = 0;
    at::Tensor is_kept, count, energy;  // bool [rows]; float64 and 0-d: as many, what A has in them
  };

  Block whiten(at::Tensor& out, const at::Tensor& y, double drop_beside, double drop_below);
  at::Tensor random_rows(int64_t rows);
  void project_out(at::Tensor& rows) const;
  void reserve(int64_t rows);
  void forget();
  void append(const at::Tensor& rows);
  at::Tensor rows_of(const at::Tensor& memory) const;
  void wait();
  // The energy, of either sign, that rounding products and bases to A's dtype may cost.
  double rounding();

  SvdDevice& device_;
  SvdMatrix& matrix_;
  uint64_t seed_;
  uint16_t stream_ = 0;
  at::Tensor basis_, image_;  // memory of rows, of which size_ and those of added_ are used
  bool is_identity_ = false;  // P is, and basis_ nothing
  int64_t size_ = 0;
  double captured_ = 0;
  std::optional<Block> added_;  // behind the size_ rows, not read yet
  std::optional<Spectrum> spectrum_;
};

}  // namespace qvlmem::ops
