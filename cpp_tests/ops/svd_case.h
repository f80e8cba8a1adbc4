// SPDX-License-Identifier: Apache-2.0
// Matrices of known spectra, and what factors of them miss.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

namespace qvlmem::ops {

// A matrix [m, n] with these singular values, of random singular vectors. By one thread: small
// decompositions are not worth waking others on a busy machine.
inline at::Tensor with_spectrum(int64_t m, int64_t n, const at::Tensor& values) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const int64_t k = values.size(0);
  const auto left = std::get<0>(at::linalg_qr(at::randn({m, k}, at::kDouble)));
  const auto right = std::get<0>(at::linalg_qr(at::randn({n, k}, at::kDouble)));
  const at::Tensor x = (left * values).mm(right.t()).to(at::kFloat);
  at::set_num_threads(threads);
  return x;
}

inline at::Tensor positions(int64_t n) { return at::arange(1, n + 1, at::kDouble); }

// Singular values by name: falling fast and slowly, ending at once, in steps, flat.
struct NamedSpectrum {
  const char* name;
  at::Tensor values;
};
inline std::vector<NamedSpectrum> spectra(int64_t n) {
  const at::Tensor i = positions(n);
  return {{"exp(-i/50)", (-i / 50).exp()},
          {"exp(-i/5)", (-i / 5).exp()},
          {"1/i", 1 / i},
          {"i^-1.5", i.pow(-1.5)},
          {"100 equal", (i <= 100).to(at::kDouble)},
          {"100 equal and noise", at::where(i <= 100, 1.0, 1e-3).to(at::kDouble)},
          {"20 equal and more noise", at::where(i <= 20, 1.0, 0.02).to(at::kDouble)},
          {"steps", at::pow(10.0, -(i / 40).floor())},
          {"one", (i <= 1).to(at::kDouble)},
          {"flat", at::ones({n}, at::kDouble)}};
}

// The smallest rank that keeps `energy` of these singular values.
inline int64_t best_rank(const at::Tensor& values, double energy) {
  const at::Tensor kept = values.pow(2).cumsum(0) / values.pow(2).sum();
  return (kept < energy - 1e-12).sum().item<int64_t>() + 1;
}

inline double missing_share(const at::Tensor& x, const at::Tensor& u, const at::Tensor& v) {
  const at::Tensor exact = x.to(at::kDouble).reshape({u.size(0), v.size(1)});
  const at::Tensor rest = exact - u.to(at::kDouble).mm(v.to(at::kDouble));
  return (rest.pow(2).sum() / exact.pow(2).sum()).item<double>();
}

inline double deviation_from_orthonormal(const at::Tensor& v) {
  const at::Tensor rows = v.to(at::kDouble);
  return (rows.mm(rows.t()) - at::eye(v.size(0), at::kDouble)).abs().max().item<double>();
}

}  // namespace qvlmem::ops
