// SPDX-License-Identifier: Apache-2.0
#include "kernels/profile/profile_spectrum.h"

#include <algorithm>
#include <cmath>

namespace qvlmem {
namespace {

constexpr int64_t N = kProfileBlock;
constexpr int64_t kLeading = N / 8;
constexpr int kBisections = 40;

// Loops run along rows, which the compiler turns into vectors without reordering any sum.
struct Matrix {
  double at[N][N] = {};
};

struct Tridiagonal {
  double diagonal[N] = {};
  double squared[N] = {};  // squares of the off-diagonal; [i] couples i - 1 and i
};

// Sums up block' * block and returns its trace.
double gram(const double* block, int64_t m, int64_t n, Matrix* g) {
  for (int64_t k = 0; k < m; ++k) {
    const double* row = block + k * N;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) g->at[i][j] += row[i] * row[j];
    }
  }
  double trace = 0.0;
  for (int64_t i = 0; i < n; ++i) trace += g->at[i][i];
  return trace;
}

// Destroys a.
Tridiagonal tridiagonalize(int64_t n, Matrix* a) {
  Tridiagonal t;
  double v[N], p[N];
  for (int64_t k = 0; k < n; ++k) {
    t.diagonal[k] = a->at[k][k];
    if (k + 1 == n) break;
    double below_sq = 0.0;
    for (int64_t i = k + 2; i < n; ++i) below_sq += a->at[k][i] * a->at[k][i];
    const double first = a->at[k][k + 1];
    const double norm_sq = first * first + below_sq;
    t.squared[k + 1] = norm_sq;
    if (below_sq == 0.0) continue;
    // H = I - v v' / h maps the row's rest onto its first axis; the sign avoids cancellation.
    const double norm = std::sqrt(norm_sq);
    for (int64_t i = k + 1; i < n; ++i) v[i] = a->at[k][i];
    v[k + 1] += first < 0 ? -norm : norm;
    const double h = norm_sq + std::fabs(first) * norm;
    for (int64_t i = k + 1; i < n; ++i) p[i] = 0.0;
    for (int64_t j = k + 1; j < n; ++j) {
      for (int64_t i = k + 1; i < n; ++i) p[i] += a->at[j][i] * v[j];
    }
    double vp = 0.0;
    for (int64_t i = k + 1; i < n; ++i) {
      p[i] /= h;
      vp += v[i] * p[i];
    }
    for (int64_t i = k + 1; i < n; ++i) p[i] -= v[i] * (vp / (2 * h));
    for (int64_t j = k + 1; j < n; ++j) {
      for (int64_t i = k + 1; i < n; ++i) a->at[j][i] -= v[j] * p[i] + p[j] * v[i];
    }
  }
  return t;
}

// The kLeading largest eigenvalues, in falling order (0 beyond the n-th), of a positive
// semidefinite t with trace 1. All are bisected in step, for their divisions to overlap.
void leading_eigenvalues(const Tridiagonal& t, int64_t n, double* values) {
  const double tiny = 0x1p-500;
  double low[kLeading], high[kLeading];
  for (int64_t e = 0; e < kLeading; ++e) {
    low[e] = 0.0;
    high[e] = 1.0;
  }
  for (int step = 0; step < kBisections; ++step) {
    double middle[kLeading], pivot[kLeading];
    int64_t above[kLeading];
    for (int64_t e = 0; e < kLeading; ++e) {
      middle[e] = (low[e] + high[e]) / 2;
      pivot[e] = 1.0;
      above[e] = 0;
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t e = 0; e < kLeading; ++e) {
        double next = t.diagonal[i] - middle[e] - t.squared[i] / pivot[e];
        next = std::fabs(next) < tiny ? -tiny : next;
        above[e] += next > 0.0;
        pivot[e] = next;
      }
    }
    for (int64_t e = 0; e < kLeading; ++e) (above[e] > e ? low[e] : high[e]) = middle[e];
  }
  for (int64_t e = 0; e < kLeading; ++e) values[e] = (low[e] + high[e]) / 2;
}

}  // namespace

BlockSpectrum block_spectrum(const double* block, int64_t m, int64_t n) noexcept {
  Matrix g;
  const double trace = gram(block, m, n, &g);
  if (trace == 0.0) return BlockSpectrum();
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) g.at[i][j] /= trace;
  }
  const Tridiagonal t = tridiagonalize(n, &g);
  const int64_t count = (n + 7) / 8;
  double values[kLeading] = {};
  leading_eigenvalues(t, n, values);
  BlockSpectrum spectrum;
  spectrum.stable_rank = 1.0 / values[0];
  for (int64_t e = 0; e < count; ++e) spectrum.low_rank_energy += values[e];
  spectrum.low_rank_energy = std::min(spectrum.low_rank_energy, 1.0);
  return spectrum;
}

}  // namespace qvlmem
