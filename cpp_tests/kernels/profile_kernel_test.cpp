// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/profile_driver.h"
#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/profile/profile_math.h"
#include "kernels/profile/profile_spectrum.h"

namespace qvlmem {
namespace {

const DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

ProfileFields profile_of(const std::vector<float>& x, int64_t rows, int64_t cols, DType dtype) {
  return profile_of(as_dtype(x, dtype), rows, cols, dtype);
}

std::vector<float> normal_values(int64_t n, float mean, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(mean, 1.0f);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

// The first eight fields by their definition.
ProfileFields by_definition(const std::vector<uint8_t>& x, int64_t rows, int64_t cols,
                            DType dtype) {
  ProfileFields f{};
  f[kProfileNumel] = static_cast<double>(rows * cols);
  std::vector<double> finite, row_absmax;
  std::map<int, double> exponents;
  for (int64_t r = 0; r < rows; ++r) {
    double absmax = 0.0;
    for (int64_t c = 0; c < cols; ++c) {
      const float v = value_at(x, dtype, r * cols + c);
      if (!std::isfinite(v)) continue;
      finite.push_back(v);
      absmax = std::max(absmax, std::fabs(double{v}));
      const int bias = dtype == DType::kFloat16 ? 15 : 127;
      int exponent = 0;
      if (v != 0) exponent = std::max(std::ilogb(v) + bias, 0);
      ++exponents[exponent];
    }
    row_absmax.push_back(absmax);
  }
  if (finite.empty()) return f;
  const double n = static_cast<double>(finite.size());
  double sum = 0, squares = 0;
  for (double v : finite) {
    sum += v;
    f[kProfileSparsity] += (v == 0) / n;
    f[kProfileAbsmax] = std::max(f[kProfileAbsmax], std::fabs(v));
  }
  f[kProfileMean] = sum / n;
  for (double v : finite) squares += (v - f[kProfileMean]) * (v - f[kProfileMean]);
  f[kProfileVariance] = squares / n;
  const double limit = 6 * std::sqrt(f[kProfileVariance]);
  for (double v : finite) f[kProfileOutlierRatio] += (std::fabs(v - f[kProfileMean]) > limit) / n;
  for (auto [e, count] : exponents) f[kProfileEntropyBits] -= count / n * std::log2(count / n);
  std::sort(row_absmax.begin(), row_absmax.end());
  const double median = row_absmax[(row_absmax.size() - 1) / 2];
  if (median > 0) f[kProfileRowAbsmaxSpread] = row_absmax.back() / median;
  return f;
}

TEST(ProfileKernelTest, ExactUpTo64KiB) {
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1},    {1, 16384}, {16384, 1}, {128, 128},
                                                {31, 129}, {72, 7},    {3, 4304},  {5, 1}};
  for (auto [rows, cols] : shapes) {
    for (DType dtype : kDTypes) {
      SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols) + " dtype " +
                   std::to_string(int(dtype)));
      std::vector<float> values = normal_values(rows * cols, 0.5f, 3);
      for (size_t i = 0; i < values.size(); i += 5) values[i] = i % 2 ? 0.0f : -0.0f;
      if (values.size() > 100) {
        values[20] = 1e-7f, values[33] = 500.0f, values[50] = NAN, values[51] = -INFINITY;
      }
      const auto x = as_dtype(values, dtype);
      const ProfileFields expected = by_definition(x, rows, cols, dtype);
      const ProfileFields actual = profile_of(x, rows, cols, dtype);
      for (int k = 0; k < kProfileStableRank; ++k) {
        EXPECT_NEAR(actual[k], expected[k], 1e-9 * (1 + std::fabs(expected[k]))) << "field " << k;
      }
    }
  }
}

TEST(ProfileKernelTest, EstimatesWhatIsLarger) {
  const std::pair<int64_t, int64_t> shapes[] = {{1, 500000}, {500000, 1}, {30000, 20}, {3, 70001},
                                                {4000, 129}, {100, 4304}, {129, 300}};
  for (auto [rows, cols] : shapes) {
    for (DType dtype : kDTypes) {
      SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols));
      std::vector<float> values = normal_values(rows * cols, 1.0f, 7);
      std::mt19937 random(1);
      for (float& v : values) v = random() % 4 == 0 ? 0.0f : v;
      const ProfileFields f = profile_of(values, rows, cols, dtype);
      EXPECT_EQ(f[kProfileNumel], static_cast<double>(rows * cols));
      // Five standard errors of a sample of at least 8192 values.
      EXPECT_NEAR(f[kProfileSparsity], 0.25, 5 * std::sqrt(0.25 * 0.75 / 8192));
      EXPECT_NEAR(f[kProfileMean], 0.75, 5 * 1.0 / std::sqrt(8192.0));
      EXPECT_NEAR(f[kProfileVariance], 0.9375, 0.1);
      EXPECT_GT(f[kProfileAbsmax], 3.5);
      EXPECT_LT(f[kProfileAbsmax], 7.0);
      EXPECT_GE(f[kProfileRowAbsmaxSpread], 1.0);
      EXPECT_GE(f[kProfileStableRank], 1.0);
      EXPECT_LE(f[kProfileStableRank], 32.0);
    }
  }
}

TEST(ProfileKernelTest, GathersFromWithinX) {
  for (const auto& [rows, cols] : kProfileShapes) {
    SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols));
    const ProfilePlan plan = profile_plan(rows, cols, DType::kFloat16);
    EXPECT_LE(profile_gathered_count(plan), 33792);
    for (int i = 0; i < profile_gathered_count(plan); ++i) {
      const int64_t at = profile_source(plan, i);
      ASSERT_GE(at, 0);
      ASSERT_LT(at, rows * cols);
    }
  }
}

TEST(ProfileKernelTest, LogarithmsAreThoseOfTheLibrary) {
  for (int total : {1, 3, 255, 16384, 32768}) {
    for (int count = 1; count <= total; ++count) {
      const double share = static_cast<double>(count) / total, expected = std::log2(share);
      ASSERT_NEAR(profile_log2(share), expected, 5e-16 * std::fabs(expected)) << share;
    }
  }
}

// A run is somewhere in its part, so that nothing is looked at twice.
TEST(ProfileKernelTest, SampleHasEveryPartOnce) {
  for (int64_t n : {64, 127, 128, 1000, 1 << 20}) {
    for (int64_t strata : {1, 3, 64}) {
      int64_t end = 0;
      for (int64_t k = 0; k < strata; ++k) {
        const int64_t begin = sample_begin(n, strata, k, n / strata, 7 * k);
        ASSERT_GE(begin, end);
        end = begin + n / strata;
      }
      ASSERT_LE(end, n);
    }
  }
}

TEST(ProfileKernelTest, FindsARowThatStandsOut) {
  std::vector<float> x = normal_values(64 * 5000, 0.0f, 2);
  for (int c = 0; c < 5000; ++c) x[17 * 5000 + c] *= 100.0f;
  const ProfileFields f = profile_of(x, 64, 5000, DType::kFloat32);
  EXPECT_GT(f[kProfileRowAbsmaxSpread], 50.0);
}

TEST(ProfileKernelTest, OutliersAreBeyondSixDeviations) {
  std::vector<float> x(1024);
  for (size_t i = 0; i < x.size(); ++i) x[i] = i % 2 ? 1.0f : -1.0f;
  x[100] = 5.5f, x[200] = -6.5f;  // the standard deviation is 1.034
  const ProfileFields f = profile_of(x, 32, 32, DType::kFloat32);
  EXPECT_EQ(f[kProfileOutlierRatio], 1.0 / 1024);
}

TEST(ProfileKernelTest, UndefinedIsZero) {
  for (DType dtype : kDTypes) {
    for (auto [rows, cols] : {std::pair<int64_t, int64_t>{0, 4}, {4, 0}, {0, 0}}) {
      EXPECT_EQ(profile_of(std::vector<float>(), rows, cols, dtype), ProfileFields{});
    }
    for (float special : {float(NAN), float(INFINITY), -float(INFINITY)}) {
      ProfileFields expected{};
      expected[kProfileNumel] = 70000;
      EXPECT_EQ(profile_of(std::vector<float>(70000, special), 7, 10000, dtype), expected);
    }
    ProfileFields zeros{};
    zeros[kProfileNumel] = 40;
    zeros[kProfileSparsity] = 1;
    EXPECT_EQ(profile_of(std::vector<float>(40, 0.0f), 5, 8, dtype), zeros);
  }
}

TEST(ProfileKernelTest, LargestFiniteValuesDoNotOverflow) {
  std::vector<float> x(64 * 64, 3.0e38f);
  for (size_t i = 0; i < x.size(); i += 3) x[i] = -x[i];
  for (double field : profile_of(x, 64, 64, DType::kFloat32)) EXPECT_TRUE(std::isfinite(field));
}

// U diag(s) V' with U and V reflections: a dense block whose singular values are known.
std::vector<float> matrix_with(const std::vector<double>& s, int64_t rows, int64_t cols) {
  const auto reflect = [](int64_t n, int64_t i, int64_t j) {
    // I - 2 w w' with w proportional to (1, 2, ..., n).
    const double norm_sq = n * (n + 1) * (2 * n + 1) / 6.0;
    return (i == j) - 2.0 * (i + 1) * (j + 1) / norm_sq;
  };
  std::vector<float> x(rows * cols);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      double v = 0;
      for (size_t k = 0; k < s.size(); ++k) v += reflect(rows, i, k) * s[k] * reflect(cols, j, k);
      x[i * cols + j] = static_cast<float>(v);
    }
  }
  return x;
}

void expect_spectrum(const std::vector<double>& s, int64_t rows, int64_t cols) {
  SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols));
  double total = 0, leading = 0;
  const size_t count = (std::min(rows, cols) + 7) / 8;
  for (size_t k = 0; k < s.size(); ++k) {
    total += s[k] * s[k];
    if (k < count) leading += s[k] * s[k];
  }
  const ProfileFields f = profile_of(matrix_with(s, rows, cols), rows, cols, DType::kFloat32);
  EXPECT_NEAR(f[kProfileStableRank], total / (s[0] * s[0]), 1e-5 * total / (s[0] * s[0]));
  EXPECT_NEAR(f[kProfileLowRankEnergy], leading / total, 1e-5);
}

TEST(ProfileKernelTest, SpectrumOfASmallMatrixIsExact) {
  const std::pair<int64_t, int64_t> shapes[] = {{32, 32}, {32, 5}, {5, 32}, {9, 9},
                                                {8, 30},  {2, 2},  {3, 1},  {1, 7}};
  for (auto [rows, cols] : shapes) {
    const int64_t rank = std::min(rows, cols);
    std::vector<double> falling(rank), flat(rank, 2.0), one = {3.0};
    for (int64_t k = 0; k < rank; ++k) falling[k] = std::exp(-0.2 * static_cast<double>(k));
    expect_spectrum(falling, rows, cols);
    expect_spectrum(flat, rows, cols);
    expect_spectrum(one, rows, cols);
  }
}

// Already tridiagonal or diagonal, with equal and zero eigenvalues: nothing to reflect.
TEST(ProfileKernelTest, SpectrumOfDiagonalBlocks) {
  double block[kProfileBlock * kProfileBlock] = {};
  for (int64_t i = 0; i < 20; ++i) block[i * kProfileBlock + i] = i < 6 ? 2.0 : 1.0;
  const BlockSpectrum s = block_spectrum(block, 32, 32);
  EXPECT_NEAR(s.stable_rank, 38.0 / 4.0, 1e-9);
  EXPECT_NEAR(s.low_rank_energy, 16.0 / 38.0, 1e-9);
}

TEST(ProfileKernelTest, ABlockOfALowRankMatrixShowsIt) {
  const int64_t n = 700;
  const auto u = normal_values(n * 2, 0.0f, 1), v = normal_values(n * 2, 0.0f, 2);
  std::vector<float> x(n * n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      x[i * n + j] = u[2 * i] * v[2 * j] + u[2 * i + 1] * v[2 * j + 1];
    }
  }
  const ProfileFields f = profile_of(x, n, n, DType::kFloat32);
  EXPECT_LE(f[kProfileStableRank], 2.001);
  EXPECT_NEAR(f[kProfileLowRankEnergy], 1.0, 1e-6);
}

TEST(ProfilePlanTest, RefusesWhatItCannotDo) {
  ProfilePlan plan;
  EXPECT_EQ(make_profile_plan(-1, 4, DType::kFloat32, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_profile_plan(4, 4, DType::kFloat64, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_profile_plan(int64_t{1} << 40, int64_t{1} << 40, DType::kFloat32, &plan),
            Status::kOverflow);
  for (int64_t cols : {1, 3, 63, 65, 128, 129, 1000, 100000}) {  // huge and never read
    ASSERT_EQ(make_profile_plan((int64_t{1} << 59) / cols, cols, DType::kBFloat16, &plan),
              Status::kOk);
    EXPECT_LE(plan.workspace_bytes, size_t{256} << 10);
    EXPECT_GE(plan.row_groups * plan.rows_per_group * plan.runs_per_row * plan.run_cols, 8192);
    EXPECT_LE(plan.rows_per_group, plan.rows / plan.row_groups);
    EXPECT_LE(plan.run_cols, plan.cols / plan.runs_per_row);
  }
}

}  // namespace
}  // namespace qvlmem
