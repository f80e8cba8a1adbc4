// SPDX-License-Identifier: Apache-2.0
// The spectrum of a small block, in float64.
#pragma once

#include "kernels/profile/profile.h"

namespace qvlmem {

struct BlockSpectrum {
  double stable_rank = 0.0;      // trace of the Gram matrix / its largest eigenvalue
  double low_rank_energy = 0.0;  // its leading ceil(n / 8) eigenvalues / trace
};

// block: m vectors of n values each, row-major with row stride kProfileBlock; n <= m: the Gram
// matrix is that of the n columns. 1 <= n, m <= kProfileBlock. Zero for an all-zero block.
// The Gram matrix is brought to tridiagonal form by Householder reflections; of that, the leading
// eigenvalues are bisected by Sturm counts (Barth, Martin, Wilkinson, "Calculation of the
// eigenvalues of a symmetric tridiagonal matrix by the method of bisection", 1967) to 2^-40 of the
// trace.
BlockSpectrum block_spectrum(const double* block, int64_t m, int64_t n) noexcept;

}  // namespace qvlmem
