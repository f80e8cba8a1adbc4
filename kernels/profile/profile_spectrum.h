// SPDX-License-Identifier: Apache-2.0
// The spectrum of a small block, in float64: one text for host and device. The Gram matrix is
// brought to tridiagonal form by Householder reflections; of that, the leading eigenvalues are
// bisected by Sturm counts (Barth, Martin, Wilkinson, "Calculation of the eigenvalues of a
// symmetric tridiagonal matrix by the method of bisection", 1967) to 2^-40 of the trace.
//
// A Team is whoever works on a block: one thread, or all of a thread block. each(begin, end, f)
// calls f(i) for i in [begin, end), and square(begin, end, f) calls f(i, j), one index always by
// the same member; one(f) calls f by one of them; what members write others see after sync(). So
// sums are in the same order whatever the team.
#pragma once

#include <cmath>

#include "kernels/base/macros.h"
#include "kernels/profile/profile.h"

namespace qvlmem {

constexpr int kSpectrumSide = static_cast<int>(kProfileBlock);
constexpr int kSpectrumLeading = kSpectrumSide / 8;
constexpr int kSpectrumBisections = 40;

struct BlockSpectrum {
  double stable_rank = 0.0;      // trace of the Gram matrix / its largest eigenvalue
  double low_rank_energy = 0.0;  // its leading ceil(n / 8) eigenvalues / trace
};

// block: m vectors of n values each, row-major with row stride kProfileBlock; n <= m: the Gram
// matrix is that of the n columns. 1 <= n, m <= kProfileBlock. Zero for an all-zero block.
BlockSpectrum block_spectrum(const double* block, int m, int n) noexcept;

// What a team works in. Loops run along rows, which a compiler turns into vectors without
// reordering any sum.
struct SpectrumSpace {
  double gram[kSpectrumSide][kSpectrumSide];
  double v[kSpectrumSide], p[kSpectrumSide];  // of a reflection
  double diagonal[kSpectrumSide];
  double squared[kSpectrumSide];  // squares of the off-diagonal; [i] couples i - 1 and i
  double trace, h, vp;
};

// space->gram = block' * block / its trace, which goes to space->trace; nothing is divided by a
// trace of 0. All members must have written the block.
template <class Team>
QVLMEM_HD inline void spectrum_gram(const Team& team, const double* block, int m, int n,
                                    SpectrumSpace* space) {
  auto& gram = space->gram;
  team.square(0, n, [&](int i, int j) { gram[i][j] = 0.0; });
  for (int k = 0; k < m; ++k) {
    const double* const row = block + k * kSpectrumSide;
    team.square(0, n, [&](int i, int j) { gram[i][j] += row[i] * row[j]; });
  }
  team.sync();
  team.one([&] {
    double trace = 0.0;
    for (int i = 0; i < n; ++i) trace += gram[i][i];
    space->trace = trace;
  });
  team.sync();
  const double trace = space->trace;
  if (trace == 0.0) return;
  team.square(0, n, [&](int i, int j) { gram[i][j] /= trace; });
  team.sync();
}

// Fills diagonal and squared; destroys the Gram matrix.
template <class Team>
QVLMEM_HD inline void spectrum_tridiagonal(const Team& team, int n, SpectrumSpace* space) {
  auto& a = space->gram;
  auto& v = space->v;
  auto& p = space->p;
  for (int k = 0; k + 1 < n; ++k) {
    // H = I - v v' / h maps the row's rest onto its first axis; the sign avoids cancellation.
    team.one([&] {
      double below_sq = 0.0;
      for (int i = k + 2; i < n; ++i) below_sq += a[k][i] * a[k][i];
      const double first = a[k][k + 1], norm_sq = first * first + below_sq;
      space->diagonal[k] = a[k][k];
      space->squared[k + 1] = norm_sq;
      const double norm = sqrt(norm_sq);
      v[k + 1] = first + (first < 0 ? -norm : norm);
      space->h = below_sq == 0.0 ? 0.0 : norm_sq + fabs(first) * norm;
    });
    team.each(k + 2, n, [&](int i) { v[i] = a[k][i]; });
    team.sync();
    const double h = space->h;
    if (h == 0.0) {
      team.sync();
      continue;
    }
    team.each(k + 1, n, [&](int i) { p[i] = 0.0; });
    for (int j = k + 1; j < n; ++j) {
      const double factor = v[j];
      team.each(k + 1, n, [&](int i) { p[i] += a[j][i] * factor; });
    }
    team.each(k + 1, n, [&](int i) { p[i] /= h; });
    team.sync();
    team.one([&] {
      double vp = 0.0;
      for (int i = k + 1; i < n; ++i) vp += v[i] * p[i];
      space->vp = vp / (2 * h);
    });
    team.sync();
    const double vp = space->vp;
    team.each(k + 1, n, [&](int i) { p[i] -= v[i] * vp; });
    team.sync();
    team.square(k + 1, n, [&](int j, int i) { a[j][i] -= v[j] * p[i] + p[j] * v[i]; });
    team.sync();
  }
  team.one([&] {
    space->diagonal[n - 1] = a[n - 1][n - 1];
    space->squared[0] = 0.0;
  });
  team.sync();
}

// The next pivot of the tridiagonal matrix less `middle`, of which as many are above 0 as
// eigenvalues are above `middle`. The first follows on 1.
QVLMEM_HD inline double spectrum_pivot(double diagonal, double squared, double middle,
                                       double pivot) {
  const double tiny = 0x1p-500;
  const double next = diagonal - middle - squared / pivot;
  return fabs(next) < tiny ? -tiny : next;
}

// values: the leading eigenvalues of an n x n matrix with trace 1, in falling order.
QVLMEM_HD inline BlockSpectrum spectrum_of_values(int n, const double* values) {
  BlockSpectrum spectrum;
  spectrum.stable_rank = 1.0 / values[0];
  for (int e = 0; e < (n + 7) / 8; ++e) spectrum.low_rank_energy += values[e];
  if (spectrum.low_rank_energy > 1.0) spectrum.low_rank_energy = 1.0;
  return spectrum;
}

}  // namespace qvlmem
