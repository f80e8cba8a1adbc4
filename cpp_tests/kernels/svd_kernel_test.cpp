// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/svd/svd.h"

namespace qvlmem {
namespace {

const DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};
const int64_t kLengths[] = {0, 1, 15, 16, 17, 31, 72, 129, 4304, 65536, 100003};

std::vector<float> normal_values(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

TEST(SvdScanTest, SumsSquaresAndFindsTheLargestMagnitude) {
  for (const DType dtype : kDTypes) {
    for (const int64_t n : kLengths) {
      const std::vector<uint8_t> x = as_dtype(normal_values(n, 7), dtype);
      long double sum = 0;
      float absmax = 0;
      for (int64_t i = 0; i < n; ++i) {
        const float v = value_at(x, dtype, i);
        sum += static_cast<long double>(v) * v;
        absmax = std::fmax(absmax, std::fabs(v));
      }
      double portable = -1;
      for_each_isa([&](Isa) {
        const SvdScan scan = svd_scan_cpu(x.data(), dtype, n);
        EXPECT_NEAR(scan.sum_squares, static_cast<double>(sum), 1e-12 * static_cast<double>(sum));
        EXPECT_EQ(scan.magnitude_bits, float_to_bits(absmax)) << n;
        EXPECT_TRUE(svd_scan_is_finite(scan));
        if (portable < 0) portable = scan.sum_squares;
        EXPECT_EQ(scan.sum_squares, portable);
      });
    }
  }
}

TEST(SvdScanTest, AnyPlaceOfOneNonFiniteValueIsSeen) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const DType dtype : kDTypes) {
    for (const float bad : {kInf, -kInf, kNan, -kNan}) {
      for (int64_t at = 0; at < 41; ++at) {
        std::vector<float> values = normal_values(41, 1);
        values[at] = bad;
        const std::vector<uint8_t> x = as_dtype(values, dtype);
        for_each_isa(
            [&](Isa) { EXPECT_FALSE(svd_scan_is_finite(svd_scan_cpu(x.data(), dtype, 41))); });
      }
    }
  }
}

TEST(SvdScanTest, ExtremesNeitherOverflowNorVanish) {
  const std::vector<uint8_t> huge = as_dtype(std::vector<float>(33, kFloat32Max), DType::kFloat32);
  const std::vector<uint8_t> tiny = as_dtype(std::vector<float>(33, 0x1p-149f), DType::kFloat32);
  for_each_isa([&](Isa) {
    const double max = kFloat32Max;
    EXPECT_DOUBLE_EQ(svd_scan_cpu(huge.data(), DType::kFloat32, 33).sum_squares, 33 * max * max);
    const SvdScan scan = svd_scan_cpu(tiny.data(), DType::kFloat32, 33);
    EXPECT_DOUBLE_EQ(scan.sum_squares, 33 * 0x1p-298);
    EXPECT_EQ(scan.magnitude_bits, 1u);
  });
}

TEST(SvdRandomSignsTest, AnySplitGivesTheSameSigns) {
  std::vector<float> whole(1000), parts(1000);
  svd_random_signs(5, 2, 300, 1300, whole.data());
  for (int64_t begin = 300; begin < 1300;) {
    const int64_t end = std::min<int64_t>(begin + 1 + begin % 37, 1300);
    svd_random_signs(5, 2, begin, end, parts.data() + (begin - 300));
    begin = end;
  }
  EXPECT_EQ(whole, parts);
}

// Means of n independent signs lie within 6 / sqrt(n) of 0, so do those of products of different
// sequences.
TEST(SvdRandomSignsTest, SignsAreFairAndSequencesIndependent) {
  constexpr int64_t n = 1 << 16;
  const auto signs = [](uint64_t seed, uint16_t stream) {
    std::vector<float> s(n);
    svd_random_signs(seed, stream, 0, n, s.data());
    return s;
  };
  const std::vector<float> base = signs(0, 0);
  const double bound = 6 / std::sqrt(double{n});
  double mean = 0;
  for (const float s : base) {
    ASSERT_EQ(std::fabs(s), 1.0f);
    mean += s / n;
  }
  EXPECT_LT(std::fabs(mean), bound);
  for (const auto& other : {signs(1, 0), signs(0, 1), signs(uint64_t{1} << 63, 0)}) {
    double correlation = 0, shifted = 0;
    for (int64_t i = 0; i < n; ++i) correlation += double{base[i]} * other[i] / n;
    for (int64_t i = 1; i < n; ++i) shifted += double{base[i]} * base[i - 1] / n;
    EXPECT_LT(std::fabs(correlation), bound);
    EXPECT_LT(std::fabs(shifted), bound);
  }
}

TEST(SvdRankTest, RankWithinIsTheSmallestWhoseTailIsAllowed) {
  const double values[] = {8, 4, 2, 1, -1e-9};
  EXPECT_EQ(svd_rank_within(values, 5, 0), 4);
  EXPECT_EQ(svd_rank_within(values, 5, 0.99), 4);
  EXPECT_EQ(svd_rank_within(values, 5, 1), 3);
  EXPECT_EQ(svd_rank_within(values, 5, 2.99), 3);
  EXPECT_EQ(svd_rank_within(values, 5, 3), 2);
  EXPECT_EQ(svd_rank_within(values, 5, 7), 1);
  EXPECT_EQ(svd_rank_within(values, 5, 100), 1);
  EXPECT_EQ(svd_rank_within(values, 5, -1e-300), 6);
  EXPECT_EQ(svd_rank_within(values, 5, std::nan("")), 6);
  EXPECT_EQ(svd_rank_within(values, 1, 0), 1);
}

TEST(SvdRankTest, RankOfRatioIsTheLargestThatFits) {
  for (const int64_t m : {1, 2, 7, 64, 100, 4304}) {
    for (const int64_t n : {1, 3, 64, 129, 2048}) {
      for (const double ratio : {1e-9, 0.1, 1.0 / 3, 0.5, 0.75, 1.0}) {
        const int64_t rank = svd_rank_of_ratio(m, n, ratio);
        const double budget = ratio * static_cast<double>(m * n);
        const int64_t most = std::min(m, n);
        ASSERT_TRUE(rank >= 1 && rank <= most);
        EXPECT_TRUE(rank == 1 || static_cast<double>(rank * (m + n)) <= budget);
        EXPECT_TRUE(rank == most || static_cast<double>((rank + 1) * (m + n)) > budget);
      }
    }
  }
}

}  // namespace
}  // namespace qvlmem
