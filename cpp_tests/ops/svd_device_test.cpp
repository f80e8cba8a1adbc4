// SPDX-License-Identifier: Apache-2.0
// The factorisation on a device that must be waited for, as a GPU must: here a CPU that counts how
// often it is asked for values, with PyTorch's own operators for BLAS and LAPACK.
#include "ops/svd/svd_device.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <string>

#include "cpp_tests/ops/svd_case.h"
#include "ops/svd/fixed_order.h"
#include "ops/svd/low_rank.h"
#include "ops/svd/range_finder.h"

namespace qvlmem::ops {
namespace {

class CountingDevice final : public SvdDevice {
 public:
  at::Tensor gram(const at::Tensor& y) override {
    const at::Tensor rows = y.to(at::kDouble);
    // What is above the diagonal is nobody's.
    return rows.mm(rows.t()).tril() + at::full({y.size(0), y.size(0)}, NAN, at::kDouble).triu(1);
  }
  Eigen eigen_descending(const at::Tensor& symmetric) override {
    ++eigenproblems;
    const auto [values, vectors] = at::linalg_eigh(symmetric.tril(), "L");
    return {values.flip(0), vectors.t().flip(0)};
  }
  at::Tensor energy(const at::Tensor& y) override { return y.to(at::kDouble).square().sum(); }
  at::Tensor random_signs(uint64_t seed, uint16_t stream, int64_t rows, int64_t cols) override {
    const at::Tensor signs = at::empty({rows, cols}, at::kFloat);
    svd_random_signs(seed, stream, 0, rows * cols, signs.mutable_data_ptr<float>());
    return signs;
  }
  SvdScan scan(const at::Tensor& x) override { return FixedOrder().scan(x); }
  std::vector<double> read(const at::Tensor& values) override {
    if (++reads == fails_at) throw std::runtime_error("the eigenproblem was not solved");
    return FixedOrder().read(values);
  }

  int reads = 0, eigenproblems = 0, fails_at = 0;

 private:
  void gemm(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
            double beta) override {
    if (beta == 0.0) out.zero_();
    out.addmm_(a, b, beta, alpha);
  }
};

double energy_of(const at::Tensor& x) { return x.to(at::kDouble).square().sum().item<double>(); }

TEST(SvdDeviceTest, TheEnergyIsMetAtARankWithinFivePercentOfTheBest) {
  at::manual_seed(1);
  for (const auto& [m, n] : {std::pair{220, 220}, {300, 120}, {100, 250}, {40, 200}}) {
    for (const NamedSpectrum& spectrum : spectra(std::min(m, n))) {
      const at::Tensor x = with_spectrum(m, n, spectrum.values);
      for (const double energy : {0.51, 0.99, 0.9999}) {
        SCOPED_TRACE(std::string(spectrum.name) + " " + std::to_string(m) + "x" +
                     std::to_string(n) + " energy " + std::to_string(energy));
        CountingDevice device;
        const auto factors = factor_to_energy(device, x, energy_of(x), energy, std::min(m, n), 0);
        ASSERT_TRUE(factors);
        const int64_t best = best_rank(spectrum.values, energy);
        EXPECT_LE(factors->u.size(1), best + std::max<int64_t>(1, best / 20));
        EXPECT_LE(missing_share(x, factors->u, factors->v), 1 - energy);
        EXPECT_LT(deviation_from_orthonormal(factors->v), 1e-6);
      }
    }
  }
}

// The host learns the size of a basis once a block, not at each of its three eigenproblems.
TEST(SvdDeviceTest, WaitsOnceABlock) {
  at::manual_seed(2);
  const at::Tensor x = with_spectrum(400, 300, (-positions(300) / 30).exp());
  CountingDevice device;
  RangeFinder finder(device, x, energy_of(x), 0);
  finder.grow(32);
  EXPECT_EQ(device.reads, 1);
  finder.refine();
  EXPECT_EQ(device.reads, 2);
  EXPECT_EQ(finder.size(), 32);
  EXPECT_EQ(device.eigenproblems, 6);

  CountingDevice for_rank;
  const LowRank factors = factor_to_rank(for_rank, x, energy_of(x), 20, 0);
  EXPECT_EQ(factors.u.size(1), 20);
  EXPECT_EQ(for_rank.reads, 2);
}

// What is dropped is carried as zeros until the host knows; then it must be gone.
TEST(SvdDeviceTest, ABlockGivesWhatTheMatrixHas) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({150, 7}).mm(at::randn({7, 180}));
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    CountingDevice device;
    RangeFinder finder(device, x.to(dtype), energy_of(x), 5);
    finder.grow(40);
    EXPECT_EQ(finder.size(), 7);
    EXPECT_LT(deviation_from_orthonormal(finder.basis()), 1e-6);
    EXPECT_LE(finder.missing_energy(), 1e-6 * energy_of(x));
    finder.grow(5);  // of rounding alone
    EXPECT_LT(deviation_from_orthonormal(finder.basis()), 1e-6);
  }
  // A rank that is asked for is given, whatever the matrix has.
  CountingDevice device;
  const LowRank factors = factor_to_rank(device, x, energy_of(x), 30, 0);
  EXPECT_EQ(factors.v.size(0), 30);
  EXPECT_LT(deviation_from_orthonormal(factors.v), 1e-6);
  EXPECT_LT(missing_share(x, factors.u, factors.v), 1e-10);
}

TEST(SvdDeviceTest, EveryDeviceFindsTheSameRank) {
  at::manual_seed(4);
  for (const NamedSpectrum& spectrum : spectra(200)) {
    const at::Tensor x = with_spectrum(260, 200, spectrum.values);
    CountingDevice counting;
    FixedOrder fixed;
    const auto a = factor_to_energy(counting, x, energy_of(x), 0.99, 200, 3);
    const auto b = factor_to_energy(fixed, x, energy_of(x), 0.99, 200, 3);
    ASSERT_TRUE(a && b);
    EXPECT_NEAR(a->u.size(1), b->u.size(1), 1) << spectrum.name;
    EXPECT_EQ(least_rank(counting, x, energy_of(x), 0.99, 0),
              least_rank(fixed, x, energy_of(x), 0.99, 0))
        << spectrum.name;
  }
}

TEST(SvdDeviceTest, AnEigenproblemThatFailsIsAnError) {
  at::manual_seed(5);
  const at::Tensor x = with_spectrum(200, 150, (-positions(150) / 10).exp());
  CountingDevice counted;
  ASSERT_TRUE(factor_to_energy(counted, x, energy_of(x), 0.999, 150, 0));
  for (int read = 1; read <= counted.reads; ++read) {
    CountingDevice failing;
    failing.fails_at = read;
    EXPECT_THROW(factor_to_energy(failing, x, energy_of(x), 0.999, 150, 0), std::runtime_error);
  }
}

}  // namespace
}  // namespace qvlmem::ops
