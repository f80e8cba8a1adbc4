// SPDX-License-Identifier: Apache-2.0
#include "ops/svd_ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cpp_tests/ops/svd_case.h"
#include "ops/svd/fixed_order.h"
#include "ops/svd/low_rank.h"

namespace qvlmem::ops {
namespace {

constexpr auto kNone = std::nullopt;

TEST(SvdOpsTest, TheEnergyIsMetAtARankWithinFivePercentOfTheBest) {
  at::manual_seed(1);
  for (const auto& [m, n] : {std::pair{300, 300}, {450, 150}, {100, 350}}) {
    for (const NamedSpectrum& spectrum : spectra(std::min(m, n))) {
      const at::Tensor x = with_spectrum(m, n, spectrum.values);
      for (const double energy : {0.5, 0.99, 0.9999, 1 - 1e-6}) {
        SCOPED_TRACE(std::string(spectrum.name) + " " + std::to_string(m) + "x" +
                     std::to_string(n) + " energy " + std::to_string(energy));
        const auto [u, v] = svd(x, true, 0.5, energy, kNone, 0);
        const int64_t best = best_rank(spectrum.values, energy);
        EXPECT_LE(u.size(1), best + std::max<int64_t>(1, best / 20));
        EXPECT_LE(missing_share(x, u, v), 1 - energy);
        EXPECT_LT(deviation_from_orthonormal(v), 1e-6);
      }
    }
  }
}

TEST(SvdOpsTest, ARankThatIsAskedForIsNearlyTheBestOfItsSize) {
  at::manual_seed(2);
  for (const NamedSpectrum& spectrum : spectra(260)) {
    SCOPED_TRACE(spectrum.name);
    const at::Tensor x = with_spectrum(300, 260, spectrum.values);
    const at::Tensor squares = spectrum.values.pow(2) / spectrum.values.pow(2).sum();
    for (const int64_t rank : {1, 20, 100, 200, 260}) {
      const auto [u, v] = svd(x, true, 0.5, 0.99, rank, 0);
      EXPECT_EQ(u.sizes(), at::IntArrayRef({300, rank}));
      EXPECT_LT(deviation_from_orthonormal(v), 1e-6);
      const double best = squares.slice(0, rank).sum().item<double>();
      EXPECT_LE(missing_share(x, u, v), 1.05 * best + 1e-12);
    }
  }
}

TEST(SvdOpsTest, TheRatioIsOfBytes) {
  at::manual_seed(3);
  for (const auto& [m, n] : {std::pair{100, 80}, {4, 4}, {3, 1000}, {1, 1}}) {
    for (const double ratio : {0.01, 0.3, 0.5, 1.0}) {
      const at::Tensor x = at::randn({m, n});
      const auto [u, v] = svd(x, false, ratio, 0.99, kNone, 0);
      const int64_t rank = u.size(1), most = std::min(m, n);
      const double budget = ratio * m * n;
      EXPECT_TRUE(rank == 1 || static_cast<double>(rank * (m + n)) <= budget);
      EXPECT_TRUE(rank == most || static_cast<double>((rank + 1) * (m + n)) > budget);
    }
  }
}

TEST(SvdOpsTest, ThreadsDoNotMatter) {
  at::manual_seed(4);
  const int before = at::get_num_threads();
  std::vector<at::Tensor> inputs = {at::randn({50, 60}), at::randn({200, 160}),
                                    at::randn({3, 40, 200}).to(at::kHalf),
                                    with_spectrum(400, 300, (-positions(300) / 20).exp()),
                                    with_spectrum(300, 400, positions(300).pow(-1.5))};
  for (const at::Tensor& x : inputs) {
    for (const double energy : {0.9, 0.9999, 1 - 1e-8}) {
      at::set_num_threads(1);
      const auto [u, v] = svd(x, true, 0.5, energy, kNone, 9);
      const auto [ur, vr] = svd(x, true, 0.5, energy, 7, 9);
      const at::Tensor y = svd_reconstruct_cpu(u, v, x.sizes(), kNone);
      for (const int threads : {2, 4}) {
        at::set_num_threads(threads);
        const auto [u2, v2] = svd(x, true, 0.5, energy, kNone, 9);
        EXPECT_TRUE(at::equal(u, u2) && at::equal(v, v2));
        const auto [ur2, vr2] = svd(x, true, 0.5, energy, 7, 9);
        EXPECT_TRUE(at::equal(ur, ur2) && at::equal(vr, vr2));
        EXPECT_TRUE(at::equal(y, svd_reconstruct_cpu(u, v, x.sizes(), kNone)));
      }
    }
  }
  at::set_num_threads(before);
}

TEST(SvdOpsTest, PrecisionSettingsOfTheProcessDoNotMatter) {
  const at::Tensor x = with_spectrum(300, 200, (-positions(200) / 10).exp());
  const auto [u, v] = svd(x, true, 0.5, 0.9999, kNone, 0);
  at::globalContext().setFloat32MatmulPrecision(std::string("medium"));
  const auto [u2, v2] = svd(x, true, 0.5, 0.9999, kNone, 0);
  at::globalContext().setFloat32MatmulPrecision(std::string("highest"));
  EXPECT_TRUE(at::equal(u, u2) && at::equal(v, v2));
}

TEST(SvdOpsTest, StridesDoNotMatter) {
  at::manual_seed(5);
  const at::Tensor base = at::randn({6, 40, 72});
  for (const at::Tensor& x : {base.transpose(0, 2), base.slice(1, 3, 30, 2), base.select(2, 5),
                              base[0][0].expand({70, 72}), base[0].t()}) {
    const auto [u, v] = svd(x, true, 0.5, 0.9, kNone, 0);
    const auto [u2, v2] = svd(x.clone(at::MemoryFormat::Contiguous), true, 0.5, 0.9, kNone, 0);
    EXPECT_TRUE(at::equal(u, u2) && at::equal(v, v2));
    const at::Tensor y = svd_reconstruct_cpu(u, v, x.sizes(), kNone);
    EXPECT_TRUE(y.is_contiguous());
    const at::Tensor strided = at::stack({u, u}, 2).select(2, 1);
    EXPECT_TRUE(
        at::equal(y, svd_reconstruct_cpu(strided, v.t().contiguous().t(), x.sizes(), kNone)));
  }
}

TEST(SvdOpsTest, ScaleDoesNotMatter) {
  at::manual_seed(6);
  const at::Tensor x = with_spectrum(150, 200, (-positions(150) / 8).exp());
  const auto [u, v] = svd(x, true, 0.5, 0.999, kNone, 0);
  for (const int exponent : {-100, -70, -20, 20, 70, 120}) {
    const double scale = std::ldexp(1.0, exponent);
    const auto [u2, v2] = svd(x * scale, true, 0.5, 0.999, kNone, 0);
    ASSERT_EQ(u2.sizes(), u.sizes()) << exponent;
    EXPECT_LE(missing_share(x.to(at::kDouble) * scale, u2, v2), 1e-3);
    EXPECT_LT(deviation_from_orthonormal(v2), 1e-6);
  }
  const auto [ut, vt] = svd(at::full({70, 80}, 0x1p-149), true, 0.5, 0.99, kNone, 0);
  EXPECT_EQ(ut.size(1), 1);
  EXPECT_GT(ut.abs().min().item<float>(), 0);
}

// Nothing is too small to be kept where all energy is asked for.
TEST(SvdOpsTest, AllEnergyIsAllThatFloat32Holds) {
  at::manual_seed(10);
  for (const auto& [m, n] : {std::pair{40, 200}, {200, 40}, {90, 200}, {200, 90}}) {
    const at::Tensor values = (-positions(40)).exp();
    const at::Tensor x = with_spectrum(m, n, values);
    const auto [u, v] = svd(x, true, 0.5, 1.0, kNone, 0);
    EXPECT_LE(missing_share(x, u, v), 1e-13);
    EXPECT_LE(u.size(1), 17);
    const at::Tensor full = at::randn({m, n});
    EXPECT_EQ(std::get<0>(svd(full, true, 0.5, 1.0, kNone, 0)).size(1), std::min(m, n));
  }
}

TEST(SvdOpsTest, ZeroRankOneAndEmpty) {
  const auto [uz, vz] = svd(at::zeros({70, 90}), true, 0.5, 0.99, kNone, 0);
  EXPECT_EQ(uz.sizes(), at::IntArrayRef({70, 1}));
  EXPECT_EQ(deviation_from_orthonormal(vz), 0);
  EXPECT_FALSE(uz.any().item<bool>());
  const auto [u3, v3] = svd(at::ones({100, 200}), true, 0.5, 0.99, 100, 0);
  EXPECT_EQ(u3.sizes(), at::IntArrayRef({100, 100}));
  EXPECT_LT(deviation_from_orthonormal(v3), 1e-6);
  EXPECT_LT(missing_share(at::ones({100, 200}), u3, v3), 1e-12);
  const auto [u1, v1] = svd(at::ones({100, 200}), true, 0.5, 1.0, kNone, 0);
  EXPECT_EQ(u1.size(1), 1);
  for (const auto& shape : {std::vector<int64_t>{0, 5}, {5, 0}, {2, 0, 3}, {0}}) {
    const at::Tensor x = at::empty(shape, at::kHalf);
    const auto [u, v] = svd(x, true, 0.5, 0.99, kNone, 0);
    EXPECT_EQ(u.size(1), 0);
    EXPECT_EQ(svd_reconstruct_cpu(u, v, shape, at::kHalf).sizes(), x.sizes());
  }
  const auto [us, vs] = svd(at::scalar_tensor(-3.0), true, 0.5, 0.99, kNone, 0);
  EXPECT_EQ(svd_reconstruct_cpu(us, vs, {}, kNone).item<float>(), -3.0f);
  EXPECT_EQ(svd_least_bytes(at::empty({0, 4}), 0.99), 0);
}

// Two-sided: never above what is enough, and near the truth where the spectrum ends at once or has
// no low rank.
TEST(SvdOpsTest, LeastRankIsABound) {
  FixedOrder device;
  at::manual_seed(7);
  for (const auto& [m, n] : {std::pair{300, 300}, {1000, 96}, {80, 640}}) {
    for (const NamedSpectrum& spectrum : spectra(std::min(m, n))) {
      const at::Tensor x = with_spectrum(m, n, spectrum.values);
      SvdMatrix matrix(device, x, at::kFloat);
      for (const double energy : {0.9, 0.99, 0.9999}) {
        for (const uint64_t seed : {0, 1, 2}) {
          EXPECT_LE(least_rank(device, matrix, energy, seed), best_rank(spectrum.values, energy))
              << spectrum.name << " " << m << "x" << n << " energy " << energy;
        }
      }
    }
  }
}

TEST(SvdOpsTest, LeastBytesTellLowRankFromNone) {
  at::manual_seed(8);
  for (const auto& [m, n] : {std::pair{300, 300}, {2048, 128}, {128, 1024}, {1000, 72}}) {
    const int64_t least_dim = std::min(m, n), column = 4 * (m + n);
    for (int trial = 0; trial < 3; ++trial) {
      for (const double energy : {0.99, 0.9999}) {
        // A quarter of the bytes of x is what 8-bit codecs take.
        EXPECT_GT(svd_least_bytes(at::randn({m, n}), energy), m * n);
        EXPECT_GT(svd_least_bytes(at::rand({m, n}) - 0.5, energy), m * n);
        for (const int64_t rank : {1, 5, int(least_dim / 8)}) {
          const at::Tensor low = at::randn({m, rank}).mm(at::randn({rank, n}));
          EXPECT_LE(svd_least_bytes(low, energy), rank * column);
          EXPECT_LE(svd_least_bytes(low + 1e-4 * at::randn({m, n}), energy), rank * column);
        }
      }
    }
  }
}

TEST(SvdOpsTest, WithinGivesTheFactorsOrRefuses) {
  at::manual_seed(9);
  const at::Tensor x = with_spectrum(300, 400, (-positions(300) / 4).exp());
  const auto [u, v] = svd(x, true, 0.5, 0.999, kNone, 0);
  const int64_t bytes = u.nbytes() + v.nbytes();
  const auto [u2, v2] = svd_within(x, 0.999, bytes, 0);
  EXPECT_TRUE(u2.size(1) <= u.size(1) && missing_share(x, u2, v2) <= 0.001);
  EXPECT_THROW(svd_within(x, 0.999, bytes / 2, 0), c10::ValueError);
  EXPECT_THROW(svd_within(x, 0.999, 0, 0), c10::ValueError);
  EXPECT_THROW(svd_within(at::randn({300, 400}), 0.999, 300 * 400, 0), c10::ValueError);
}

TEST(SvdOpsTest, UnfitValuesAreRefusedWithWords) {
  at::Tensor x = at::randn({70, 80});
  x[3][5] = std::nan("");
  x[9][0] = -INFINITY;
  try {
    svd(x, true, 0.5, 0.99, kNone, 0);
    FAIL();
  } catch (const c10::ValueError& error) {
    const std::string text = error.what_without_backtrace();
    EXPECT_NE(text.find("2 values"), std::string::npos) << text;
    EXPECT_NE(text.find("[3, 5]"), std::string::npos) << text;
  }
  EXPECT_THROW(svd(at::full({90, 90}, 60000.0, at::kHalf), true, 0.5, 0.99, kNone, 0),
               c10::ValueError);
  EXPECT_THROW(svd(at::full({3, 3}, 3e38), true, 0.5, 0.99, kNone, 0), c10::ValueError);
  EXPECT_THROW(svd(at::full({3, 3}, 3e38), true, 0.5, 0.99, 1, 0), c10::ValueError);
}

TEST(SvdOpsTest, ReconstructSaturatesFiniteFactorsOnly) {
  const at::Tensor u = at::full({600, 2}, 3e38), v = at::full({2, 700}, 0.9);
  for (const auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const at::Tensor y = svd_reconstruct_cpu(u, v, {600, 700}, dtype);
    EXPECT_TRUE(at::isfinite(y).all().item<bool>());
    EXPECT_GT(y.min().item<double>(), 65503.0);
  }
  // Sums whose parts overflow where they do not.
  const at::Tensor w = at::tensor({3e38f, 3e38f, -3e38f, -3e38f}).view({1, 4});
  EXPECT_EQ(svd_reconstruct_cpu(w, at::ones({4, 1}), {1, 1}, kNone).item<float>(), 0.0f);
  const at::Tensor infinite = at::full({1, 1}, INFINITY);
  EXPECT_TRUE(std::isinf(svd_reconstruct_cpu(infinite, at::ones({1, 1}), {}, kNone).item<float>()));
}

TEST(SvdOpsTest, ReconstructChecksItsFactors) {
  const at::Tensor u = at::ones({6, 2}), v = at::ones({2, 4});
  EXPECT_EQ(svd_reconstruct_cpu(u, v, {2, 3, 4}, kNone).sizes(), at::IntArrayRef({2, 3, 4}));
  EXPECT_THROW(svd_reconstruct_cpu(u, v, {2, 3, 5}, kNone), c10::ValueError);
  EXPECT_THROW(svd_reconstruct_cpu(u, v, {5, 4}, kNone), c10::ValueError);
  EXPECT_THROW(svd_reconstruct_cpu(u, at::ones({3, 4}), {6, 4}, kNone), c10::ValueError);
  EXPECT_THROW(svd_reconstruct_cpu(u.view({12}), v, {6, 4}, kNone), c10::ValueError);
  EXPECT_THROW(svd_reconstruct_cpu(u, v, {-6, 4}, kNone), c10::ValueError);
  EXPECT_THROW(svd_reconstruct_cpu(u, v, {int64_t{1} << 62, 4}, kNone), c10::ValueError);
  EXPECT_THROW(svd_reconstruct_cpu(u, v.to(at::kHalf), {6, 4}, kNone), c10::TypeError);
  EXPECT_THROW(svd_reconstruct_cpu(u.to(at::kInt), v, {6, 4}, kNone), c10::TypeError);
  EXPECT_THROW(svd_reconstruct_cpu(u, v, {6, 4}, at::kInt), c10::TypeError);
  EXPECT_TRUE(at::equal(svd_reconstruct_cpu(at::ones({6, 0}), at::ones({0, 4}), {6, 4}, kNone),
                        at::zeros({6, 4})));
}

}  // namespace
}  // namespace qvlmem::ops
