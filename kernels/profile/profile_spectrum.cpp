// SPDX-License-Identifier: Apache-2.0
#include "kernels/profile/profile_spectrum.h"

namespace qvlmem {
namespace {

struct OneThread {
  template <class F>
  void each(int begin, int end, const F& f) const {
    for (int i = begin; i < end; ++i) f(i);
  }
  template <class F>
  void square(int begin, int end, const F& f) const {
    for (int i = begin; i < end; ++i) {
      for (int j = begin; j < end; ++j) f(i, j);
    }
  }
  template <class F>
  void one(const F& f) const {
    f();
  }
  void sync() const {}
};

// The largest eigenvalues, in falling order (0 beyond the n-th), of a positive semidefinite matrix
// with trace 1. All are bisected in step, for their divisions to overlap.
void leading_eigenvalues(const SpectrumSpace& t, int n, double* values) {
  double low[kSpectrumLeading], high[kSpectrumLeading];
  for (int e = 0; e < kSpectrumLeading; ++e) {
    low[e] = 0.0;
    high[e] = 1.0;
  }
  for (int step = 0; step < kSpectrumBisections; ++step) {
    double middle[kSpectrumLeading], pivot[kSpectrumLeading];
    int64_t above[kSpectrumLeading];
    for (int e = 0; e < kSpectrumLeading; ++e) {
      middle[e] = (low[e] + high[e]) / 2;
      pivot[e] = 1.0;
      above[e] = 0;
    }
    for (int i = 0; i < n; ++i) {
      for (int e = 0; e < kSpectrumLeading; ++e) {
        pivot[e] = spectrum_pivot(t.diagonal[i], t.squared[i], middle[e], pivot[e]);
        above[e] += pivot[e] > 0.0;
      }
    }
    for (int e = 0; e < kSpectrumLeading; ++e) (above[e] > e ? low[e] : high[e]) = middle[e];
  }
  for (int e = 0; e < kSpectrumLeading; ++e) values[e] = (low[e] + high[e]) / 2;
}

}  // namespace

BlockSpectrum block_spectrum(const double* block, int m, int n) noexcept {
  const OneThread team;
  SpectrumSpace space;
  spectrum_gram(team, block, m, n, &space);
  if (space.trace == 0.0) return BlockSpectrum();
  spectrum_tridiagonal(team, n, &space);
  double values[kSpectrumLeading];
  leading_eigenvalues(space, n, values);
  return spectrum_of_values(n, values);
}

}  // namespace qvlmem
