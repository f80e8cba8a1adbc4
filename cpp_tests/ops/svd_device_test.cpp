// SPDX-License-Identifier: Apache-2.0
// The factorisation on a device that must be waited for, as a GPU must: here a CPU that counts how
// often it is asked for values, with the calls of BLAS and LAPACK that a GPU's libraries take.
#include "ops/svd/blas_device.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "cpp_tests/ops/svd_case.h"
#include "ops/svd/fixed_order.h"
#include "ops/svd/low_rank.h"
#include "ops/svd/range_finder.h"

// Fortran BLAS and LAPACK, as PyTorch's CPU library exports them.
extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*,
            const float*, const int*, const float*, const int*, const float*, float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*,
            const double*, const int*, const double*, const int*, const double*, double*,
            const int*);
void dsyevd_(const char*, const char*, const int*, double*, const int*, double*, double*,
             const int*, int*, const int*, int*);
}

namespace qvlmem::ops {
namespace {

class CountingDevice final : public BlasDevice {
 public:
  CountingDevice() : BlasDevice(at::kCPU) {}

  at::Tensor random_signs(uint64_t seed, uint16_t stream, int64_t rows, int64_t cols) override {
    return FixedOrder().random_signs(seed, stream, rows, cols);
  }
  at::Tensor scan(const at::Tensor& x) override { return FixedOrder().scan(x); }
  std::vector<double> read(const std::vector<at::Tensor>& values) override {
    ++reads;
    return BlasDevice::read(values);
  }

  int reads = 0, eigenproblems = 0, fails_at = 0;

 private:
  static const char* letter(bool transpose) { return transpose ? "T" : "N"; }

  void run(const Gemm<float>& g) override {
    sgemm_(letter(g.transpose_a), letter(g.transpose_b), &g.m, &g.n, &g.k, &g.alpha, g.a, &g.lda,
           g.b, &g.ldb, &g.beta, g.c, &g.ldc);
  }
  void run(const Gemm<double>& g) override {
    dgemm_(letter(g.transpose_a), letter(g.transpose_b), &g.m, &g.n, &g.k, &g.alpha, g.a, &g.lda,
           g.b, &g.ldb, &g.beta, g.c, &g.ldc);
  }
  void syrk(bool transpose, int n, int k, const double* a, int lda, double* c, int ldc) override {
    const double one = 1.0, zero = 0.0;
    std::vector<double> product(static_cast<size_t>(n) * n);
    dgemm_(letter(!transpose), letter(transpose), &n, &n, &k, &one, a, &lda, a, &lda, &zero,
           product.data(), &n);
    for (int col = 0; col < n; ++col) {
      for (int row = 0; row <= col; ++row) c[col * ldc + row] += product[col * n + row];
    }
  }
  void syevd(int n, double* a, double* values, int32_t* info) override {
    // What is below the diagonal is nobody's.
    for (int col = 0; col < n; ++col) std::fill(a + col * n + col + 1, a + (col + 1) * n, NAN);
    int work_size = 1 + 6 * n + 2 * n * n, int_size = 3 + 5 * n;
    std::vector<double> work(work_size);
    std::vector<int> ints(int_size);
    dsyevd_("V", "U", &n, a, &n, values, work.data(), &work_size, ints.data(), &int_size, info);
    if (++eigenproblems == fails_at) *info = 1;
  }
};

double energy_of(const at::Tensor& x) { return x.to(at::kDouble).square().sum().item<double>(); }

std::optional<LowRank> to_energy(SvdDevice& device, const at::Tensor& x, double energy,
                                 int64_t max_rank, uint64_t seed = 0) {
  SvdMatrix matrix(device, x, energy_dtype(energy));
  return factor_to_energy(device, matrix, energy, max_rank, seed);
}

LowRank to_rank(SvdDevice& device, const at::Tensor& x, int64_t rank) {
  SvdMatrix matrix(device, x, at::kFloat);
  return factor_to_rank(device, matrix, rank, 0);
}

int64_t least_rank_of(SvdDevice& device, const at::Tensor& x, double energy) {
  SvdMatrix matrix(device, x, at::kFloat);
  return least_rank(device, matrix, energy, 0);
}

TEST(SvdDeviceTest, TheEnergyIsMetAtARankWithinFivePercentOfTheBest) {
  at::manual_seed(1);
  for (const auto& [m, n] : {std::pair{220, 220}, {300, 120}, {100, 250}, {40, 200}}) {
    for (const NamedSpectrum& spectrum : spectra(std::min(m, n))) {
      const at::Tensor x = with_spectrum(m, n, spectrum.values);
      for (const double energy : {0.503, 0.99, 0.9999}) {
        SCOPED_TRACE(std::string(spectrum.name) + " " + std::to_string(m) + "x" +
                     std::to_string(n) + " energy " + std::to_string(energy));
        CountingDevice device;
        const auto factors = to_energy(device, x, energy, std::min(m, n));
        ASSERT_TRUE(factors);
        const int64_t best = best_rank(spectrum.values, energy);
        EXPECT_LE(factors->u.size(1), best + std::max<int64_t>(1, best / 20));
        EXPECT_LE(missing_share(x, factors->u, factors->v), 1 - energy);
        EXPECT_LT(deviation_from_orthonormal(factors->v), 1e-6);
      }
    }
  }
}

// The host learns what it must decide by, and all else that is known by then in the same copy.
TEST(SvdDeviceTest, WaitsOnceForWhatItDecidesBy) {
  at::manual_seed(2);
  const auto i = positions(300);
  const auto waits = [](const at::Tensor& x, double energy, int64_t max_rank, int64_t rank) {
    CountingDevice device;
    const auto factors = to_energy(device, x, energy, max_rank);
    EXPECT_EQ(factors.has_value(), rank > 0);
    if (factors) {
      EXPECT_NEAR(factors->u.size(1), rank, 1 + rank / 20);
    }
    return device.reads;
  };
  // A rank below a block's: of its own accord, as all that the matrix has, and as a cliff.
  EXPECT_EQ(waits(with_spectrum(400, 300, (-i / 4).exp()), 0.99, 300, 10), 1);
  EXPECT_EQ(waits(at::randn({400, 8}).mm(at::randn({8, 300})), 0.9999, 300, 8), 1);
  EXPECT_EQ(waits(with_spectrum(400, 300, at::where(i <= 30, 1.0, 1e-3)), 0.99, 300, 30), 1);
  EXPECT_EQ(waits(with_spectrum(60, 300, at::ones(60, at::kDouble)), 0.99, 60, 60), 1);
  EXPECT_EQ(waits(with_spectrum(300, 60, at::ones(60, at::kDouble)), 0.99, 60, 60), 1);
  EXPECT_EQ(waits(at::randn({1, 500}), 0.99, 1, 1), 1);
  // Sizes 32, 64 and what the rate says, and a refinement; where nothing tells a low rank, all.
  EXPECT_LE(waits(with_spectrum(400, 300, (-i / 43).exp()), 0.99, 300, 100), 4);
  EXPECT_EQ(waits(with_spectrum(400, 300, (i <= 100).to(at::kDouble)), 0.99, 300, 99), 2);
  // Refused: by the first block, and before it.
  EXPECT_EQ(waits(at::randn({400, 300}), 0.99, 100, 0), 1);
  EXPECT_EQ(waits(at::randn({400, 300}), 0.99, 0, 0), 1);

  for (const int64_t rank : {1, 20, 100, 200, 300}) {
    CountingDevice device;
    const LowRank factors = to_rank(device, with_spectrum(400, 300, (-i / 30).exp()), rank);
    EXPECT_EQ(factors.u.size(1), rank);
    EXPECT_EQ(device.reads, 1) << rank;
  }

  CountingDevice flat, low;
  EXPECT_GT(least_rank_of(flat, at::randn({400, 300}), 0.99), 75);
  EXPECT_EQ(flat.reads, 1);
  least_rank_of(low, with_spectrum(400, 300, (-i / 4).exp()), 0.99);
  EXPECT_EQ(low.reads, 2);
}

// A limit that the rank just meets refuses nothing, and changes no bit; one that it does not, all.
TEST(SvdDeviceTest, ALimitRefusesOnlyWhatIsBeyondIt) {
  at::manual_seed(11);
  std::vector<NamedSpectrum> all = spectra(240);
  for (const double power : {0.3, 0.5, 0.7, 0.9, 1.1, 1.3}) {
    all.push_back({"power", positions(240).pow(-power)});
  }
  for (const NamedSpectrum& spectrum : all) {
    SCOPED_TRACE(spectrum.name);
    const at::Tensor x = with_spectrum(300, 240, spectrum.values);
    for (const double energy : {0.9, 0.99, 0.9999}) {
      SCOPED_TRACE(energy);
      FixedOrder device;
      const auto free = to_energy(device, x, energy, 240);
      ASSERT_TRUE(free);
      const int64_t rank = free->u.size(1);
      const auto limited = to_energy(device, x, energy, rank);
      ASSERT_TRUE(limited) << rank;
      EXPECT_TRUE(at::equal(limited->u, free->u) && at::equal(limited->v, free->v));
      EXPECT_FALSE(to_energy(device, x, energy, rank - 1));
    }
  }
}

// What the first wait brings may be that all was in vain: then it is an error, or begun anew.
TEST(SvdDeviceTest, TheScanComesWithTheFirstWait) {
  at::manual_seed(8);
  const at::Tensor x = with_spectrum(200, 150, (-positions(150) / 4).exp());
  const auto factors_of = [](CountingDevice& device, const at::Tensor& matrix, double energy) {
    return factor_matrix<std::optional<LowRank>>(
        device, matrix, energy_dtype(energy), [] { return std::nullopt; },
        [&](SvdMatrix& known) { return factor_to_energy(device, known, energy, 150, 0); });
  };
  for (const float value : {NAN, INFINITY, -INFINITY}) {
    for (const double energy : {0.99, 1 - 1e-8}) {
      CountingDevice device;
      at::Tensor bad = x.clone();
      bad[3][5] = bad[7][0] = value;
      try {
        factors_of(device, bad, energy);
        ADD_FAILURE();
      } catch (const c10::ValueError& error) {
        const std::string text = error.what_without_backtrace();
        EXPECT_NE(text.find("2 values"), std::string::npos) << text;
        EXPECT_NE(text.find("[3, 5]"), std::string::npos) << text;
      }
      EXPECT_EQ(device.reads, 1);
    }
  }
  CountingDevice of_zero;
  EXPECT_FALSE(factors_of(of_zero, at::zeros({200, 150}), 0.99));
  EXPECT_EQ(of_zero.reads, 1);

  CountingDevice plain;
  const auto expected = factors_of(plain, x, 0.99);
  EXPECT_EQ(plain.reads, 1);
  for (const int exponent : {-120, -70, 70, 120}) {
    CountingDevice device;
    const at::Tensor scaled = x * std::ldexp(1.0, exponent);
    const at::Tensor before = scaled.clone();
    const auto found = factors_of(device, scaled, 0.99);
    EXPECT_EQ(device.reads, 2);
    EXPECT_TRUE(at::equal(scaled, before));
    ASSERT_EQ(found->u.sizes(), expected->u.sizes());
    EXPECT_LE(missing_share(scaled.to(at::kDouble), found->u, found->v), 0.01);
    EXPECT_LT(deviation_from_orthonormal(found->v), 1e-6);
  }
  // Only where the largest singular value is near the dtype's largest one must u be looked at.
  CountingDevice near, beyond;
  EXPECT_TRUE(factors_of(near, at::full({100, 100}, 620.0, at::kHalf), 0.99));
  EXPECT_EQ(near.reads, 2);
  EXPECT_THROW(factors_of(beyond, at::full({100, 100}, 60000.0, at::kHalf), 0.99), c10::ValueError);
}

// What is dropped is carried as zeros until the host knows; then it must be gone.
TEST(SvdDeviceTest, ABlockGivesWhatTheMatrixHas) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({150, 7}).mm(at::randn({7, 180}));
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    CountingDevice device;
    SvdMatrix matrix(device, x, dtype);
    RangeFinder finder(device, matrix, 5);
    finder.grow(40);
    EXPECT_EQ(finder.size(), 7);
    EXPECT_LT(deviation_from_orthonormal(finder.basis()), 1e-6);
    EXPECT_LE(finder.missing_energy(), 1e-6 * energy_of(x));
    finder.grow(5);  // of rounding alone
    EXPECT_LT(deviation_from_orthonormal(finder.basis()), 1e-6);
  }
  // A rank that is asked for is given, whatever the matrix has.
  CountingDevice device;
  const LowRank factors = to_rank(device, x, 30);
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
    const auto a = to_energy(counting, x, 0.99, 200, 3);
    const auto b = to_energy(fixed, x, 0.99, 200, 3);
    ASSERT_TRUE(a && b);
    EXPECT_NEAR(a->u.size(1), b->u.size(1), 1) << spectrum.name;
    EXPECT_EQ(least_rank_of(counting, x, 0.99), least_rank_of(fixed, x, 0.99)) << spectrum.name;
  }
}

TEST(SvdDeviceTest, AnEigenproblemThatFailsIsAnError) {
  at::manual_seed(5);
  const at::Tensor x = with_spectrum(200, 150, (-positions(150) / 10).exp());
  CountingDevice counted;
  ASSERT_TRUE(to_energy(counted, x, 0.999, 150));
  for (int problem = 1; problem <= counted.eigenproblems; ++problem) {
    CountingDevice failing;
    failing.fails_at = problem;
    EXPECT_THROW(to_energy(failing, x, 0.999, 150), c10::Error);
  }
}

// Every layout that a product meets, empty ones among them.
TEST(SvdDeviceTest, MultipliesWhateverTheStrides) {
  at::manual_seed(6);
  CountingDevice device;
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const at::TensorOptions options = at::TensorOptions(dtype);
    for (const auto& [m, k, n] :
         {std::tuple{5, 7, 3}, {1, 4, 6}, {6, 1, 1}, {4, 0, 3}, {0, 3, 2}}) {
      const at::Tensor as[] = {at::randn({m, k}, options), at::randn({k, m}, options).t(),
                               at::randn({m, k + 2}, options).narrow(1, 1, k)};
      const at::Tensor bs[] = {at::randn({k, n}, options), at::randn({n, k}, options).t(),
                               at::randn({k + 3, n}, options).narrow(0, 2, k)};
      for (const at::Tensor& a : as) {
        for (const at::Tensor& b : bs) {
          const at::Tensor expected = a.to(at::kDouble).mm(b.to(at::kDouble)).to(dtype);
          EXPECT_TRUE(at::allclose(device.product(a, b), expected, 1e-4, 1e-5));
          at::Tensor out = at::ones({m, n + 2}, options).narrow(1, 1, n);
          device.multiply(out, a, b, -2.0, 0.5);
          EXPECT_TRUE(at::allclose(out, 0.5 - 2.0 * expected, 1e-4, 1e-5));
        }
      }
    }
  }
}

// More columns than are made float64 at a time.
TEST(SvdDeviceTest, GramsAreSummedInPieces) {
  at::manual_seed(7);
  CountingDevice device;
  const at::Tensor y = at::randn({3, (int64_t{1} << 21) + 5});
  const at::Tensor expected = y.to(at::kDouble).mm(y.to(at::kDouble).t());
  EXPECT_TRUE(at::allclose(device.gram(y).tril(), expected.tril(), 1e-12));
  EXPECT_TRUE(at::allclose(device.gram(y.to(at::kDouble)).tril(), expected.tril(), 1e-12));
  const at::Tensor part = y.narrow(1, 7, 400).narrow(0, 1, 2);
  EXPECT_TRUE(at::allclose(device.gram(part).tril(), FixedOrder().gram(part).tril(), 1e-12));
}

}  // namespace
}  // namespace qvlmem::ops
