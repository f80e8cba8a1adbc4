// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/half_driver.h"
#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/half/half.h"
#include "kernels/half/half_math.h"

namespace qvlmem {
namespace {

// The contract's words on the scale, from the values alone.
void expect_scale_is_right(const std::vector<uint8_t>& x, int64_t n, DType dtype, double scale) {
  double top = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double v = element_of(x, dtype, i);
    if (std::isfinite(v)) top = std::max(top, std::fabs(v));
  }
  if (top == 0.0) {
    EXPECT_EQ(scale, 1.0);
    return;
  }
  const double least = dtype == DType::kFloat64 ? 0x1p-1022 : 0x1p-126;
  int exponent;
  EXPECT_EQ(std::frexp(scale, &exponent), 0.5) << "no power of two: " << scale;
  EXPECT_GE(scale, least);
  EXPECT_LT(top / scale, 65520.0);
  if (scale > least) {
    EXPECT_GE(top / scale, 1024.0);
  }
}

// Relative error of normal halves, absolute error of subnormal ones: half a unit in the last place.
void expect_close(double x, double y, double scale) {
  const double bound = std::max(std::fabs(x) * 0x1p-11, 0x1p-25 * scale);
  ASSERT_LE(std::fabs(x - y), bound) << x << " came back as " << y << " scale " << scale;
}

TEST(HalfKernelTest, HalvesAreWithinHalfAUnitAndAlikeOnEveryIsa) {
  for (DType dtype : kScaledDTypes) {
    for (int64_t n : {1, 5, 31, 72, 129, 4304, 16384, 16385, 40000, 70001}) {
      for (double factor : {1.0, 1e-30, 3e30}) {
        SCOPED_TRACE(std::to_string(n) + " dtype " + std::to_string(int(dtype)));
        std::vector<double> values = half_sample(n, factor, 7);
        if (n > 20) values[17] = -0.0, values[3] = 1e-40, values[11] *= 20;
        const auto x = bytes_of(values, dtype);
        const HalfPlan plan = half_plan(n, dtype);
        EncodedHalves reference;
        std::vector<uint8_t> reference_y;
        for_each_isa([&](Isa isa) {
          const EncodedHalves e = encode_halves(plan, x.data());
          const auto y = decode_halves(e.half, e.scale, n, DType::kFloat64);
          if (isa == Isa::kPortable) {
            reference = e;
            reference_y = y;
          }
          EXPECT_TRUE(e == reference);
          EXPECT_TRUE(e == encode_halves(plan, x.data(), true));
          EXPECT_EQ(y, reference_y);
          EXPECT_EQ(e.half[n], 0xeeee);
          expect_scale_is_right(x, n, dtype, e.scale);
          for (int64_t i = 0; i < n; ++i) {
            expect_close(element_of(x, dtype, i), element_of(y, DType::kFloat64, i), e.scale);
          }
        });
      }
    }
  }
}

TEST(HalfKernelTest, AnOutlierThatTheSampleMissesCostsASecondPassAndNothingElse) {
  const int64_t n = 300000;
  for (DType dtype : kScaledDTypes) {
    const HalfPlan plan = half_plan(n, dtype);
    bool second_pass = false;
    for (int64_t at : {int64_t{8192}, n / 3, n / 2 + 7, n - 1}) {
      std::vector<double> values = half_sample(n, 1.0, 3);
      values[at] = -4e7;
      values[n / 3 + 1] = NAN;
      const auto x = bytes_of(values, dtype);
      EncodedHalves reference;
      for_each_isa([&](Isa isa) {
        const EncodedHalves e = encode_halves(plan, x.data());
        if (isa == Isa::kPortable) reference = e;
        EXPECT_TRUE(e == reference);
        EXPECT_TRUE(e == encode_halves(plan, x.data(), true));
        second_pass |= e.passes == 2;
        expect_scale_is_right(x, n, dtype, e.scale);
        EXPECT_EQ(e.half[at] & 0x7c00, (14 + 15) << 10);
      });
    }
    EXPECT_TRUE(second_pass);
  }
}

// Where the sample's maximum is in [1, 2), the proposal is 2^-12: it holds up to 65520 * 2^-12.
TEST(HalfKernelTest, TheProposalStandsAsLongAsNothingOverflows) {
  const int64_t n = 300000, missed = n - 3;
  const std::pair<double, double> outlier_and_scale[] = {
      {1.0, 0x1p-12}, {15.9921875, 0x1p-12}, {15.998, 0x1p-11}, {31.0, 0x1p-10}, {33.0, 0x1p-9}};
  for (auto [outlier, scale] : outlier_and_scale) {
    std::vector<double> values(n, 1.5);
    values[missed] = outlier;
    for (DType dtype : {DType::kFloat32, DType::kFloat64}) {
      const auto x = bytes_of(values, dtype);
      const EncodedHalves e = encode_halves(half_plan(n, dtype), x.data());
      EXPECT_EQ(e.scale, scale) << outlier;
      EXPECT_EQ(e.passes, scale == 0x1p-12 ? 1 : 2);
      expect_scale_is_right(x, n, dtype, e.scale);
      expect_close(outlier, to_float(Half{e.half[missed]}) * e.scale, e.scale);
    }
  }
}

TEST(HalfKernelTest, APassThatFailsStillFindsTheLargest) {
  const int64_t n = 300000;
  std::vector<double> values(n, 1.5);
  values[n / 3 + 2] = 1e6;  // in an earlier unit, where one call has failed already
  values[n - 3] = 1e9;
  const auto x = bytes_of(values, DType::kFloat32);
  for (bool one_call : {false, true}) {
    const EncodedHalves e = encode_halves(half_plan(n, DType::kFloat32), x.data(), one_call);
    EXPECT_EQ(e.scale, 0x1p15);
  }
}

TEST(HalfKernelTest, ASampleOfZerosSaysNothing) {
  const int64_t n = 300000;
  for (DType dtype : kScaledDTypes) {
    for (double value : {0x1p-20, 3.0, 1023.0, 1024.0, 1e30}) {
      std::vector<double> values(n, 0.0);
      values[n - 3] = value;
      const auto x = bytes_of(values, dtype);
      const EncodedHalves e = encode_halves(half_plan(n, dtype), x.data());
      expect_scale_is_right(x, n, dtype, e.scale);
      expect_close(element_of(x, dtype, n - 3), to_float(Half{e.half[n - 3]}) * e.scale, e.scale);
    }
  }
}

TEST(HalfKernelTest, SampleLiesInTheTensorWithoutOverlap) {
  for (int64_t n : {kHalfSampleAll + 1, int64_t{20011}, int64_t{1} << 40, int64_t{1} << 59}) {
    int64_t end = 0;
    for (int64_t run = 0; run < kHalfSampleRuns; ++run) {
      const int64_t begin = half_sample_begin(n, run);
      ASSERT_GE(begin, end);
      ASSERT_LE(begin / (n / kHalfSampleRuns + 1), run);
      end = begin + kHalfSampleRun;
    }
    ASSERT_LE(end, n);
    ASSERT_GE(end, n - 2 * (n / kHalfSampleRuns));
  }
}

TEST(HalfKernelTest, SpecialValuesStay) {
  for (DType dtype : kScaledDTypes) {
    for (const auto& small : half_specials(dtype)) {
      for (int repeat : {1, 19}) {  // whole vectors and tails
        std::vector<double> values;
        for (int k = 0; k < repeat; ++k) values.insert(values.end(), small.begin(), small.end());
        const int64_t n = static_cast<int64_t>(values.size());
        const auto x = bytes_of(values, dtype);
        EncodedHalves reference;
        for_each_isa([&](Isa isa) {
          const EncodedHalves e = encode_halves(half_plan(n, dtype), x.data());
          if (isa == Isa::kPortable) reference = e;
          EXPECT_TRUE(e == reference);
          expect_scale_is_right(x, n, dtype, e.scale);
          const auto y = decode_halves(e.half, e.scale, n, dtype);
          for (int64_t i = 0; i < n; ++i) {
            const double in = values[i], out = element_of(y, dtype, i);
            if (std::isnan(in)) {
              EXPECT_TRUE(std::isnan(out));
            } else if (std::isinf(in) || in == 0.0) {
              EXPECT_EQ(out, in);
              EXPECT_EQ(std::signbit(out), std::signbit(in));
            } else {
              EXPECT_TRUE(std::isfinite(out));
              // float64's smallest values: the product itself is rounded to a subnormal.
              if (std::fabs(in) > 0x1p-1000) expect_close(in, out, e.scale);
            }
          }
        });
      }
    }
  }
}

TEST(HalfKernelTest, Float16InputStaysAsItIs) {
  std::vector<uint16_t> x(0x10000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint16_t>(i);
  const int64_t n = static_cast<int64_t>(x.size());
  for_each_isa([&](Isa) {
    EncodedHalves e = encode_halves(half_plan(n, DType::kFloat16), x.data());
    e.half.resize(x.size());
    EXPECT_EQ(e.half, x);
    EXPECT_EQ(e.scale, 1.0);
    const auto y = decode_halves(e.half, e.scale, n, DType::kFloat16);
    for (size_t i = 0; i < x.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, &y[i * 2], 2);
      ASSERT_EQ(bits, (x[i] & 0x7fff) > 0x7c00 ? x[i] | 0x0200 : x[i]);
    }
  });
}

TEST(HalfKernelTest, DecodesEveryHalfAlikeAndSaturates) {
  std::vector<uint16_t> half(0x10000);
  for (size_t i = 0; i < half.size(); ++i) half[i] = static_cast<uint16_t>(i);
  const int64_t n = static_cast<int64_t>(half.size());
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kFloat64}) {
    double limit = kFloat64Max;
    if (dtype == DType::kFloat32) limit = kFloat32Max;
    if (dtype == DType::kFloat16) limit = kFloat16Max;
    if (dtype == DType::kBFloat16) limit = kBFloat16Max;
    for (double scale : {1.0, 0x1p-126, 0x1p-20, 0x1p117, 0x1p1013, 0x1p-1022, 0.3, 1e40}) {
      SCOPED_TRACE(std::to_string(int(dtype)) + " scale " + std::to_string(scale));
      std::vector<uint8_t> reference;
      for_each_isa([&](Isa isa) {
        const auto y = decode_halves(half, scale, n, dtype);
        if (isa == Isa::kPortable) reference = y;
        EXPECT_EQ(y, reference);
      });
      for (int64_t i = 0; i < n; ++i) {
        const double in = to_float(Half{half[i]}), out = element_of(reference, dtype, i);
        if (std::isnan(in)) {
          ASSERT_TRUE(std::isnan(out));
        } else if (std::isinf(in)) {
          ASSERT_EQ(out, in);
        } else if (std::fabs(in * scale) >= limit) {
          ASSERT_EQ(out, std::copysign(limit, in));
        } else {
          const double ulp = dtype == DType::kFloat64    ? 0x1p-52
                             : dtype == DType::kFloat32  ? 0x1p-24
                             : dtype == DType::kBFloat16 ? 0x1.01p-8
                                                         : 0x1.01p-11;
          const double least = dtype == DType::kFloat64    ? 0x1p-1074
                               : dtype == DType::kFloat32  ? 0x1p-149
                               : dtype == DType::kBFloat16 ? 0x1p-133
                                                           : 0x1p-24;
          ASSERT_LE(std::fabs(out - in * scale), std::max(ulp * std::fabs(in * scale), least));
        }
      }
    }
  }
}

// Nearest even by comparison with both neighbours, independent of the formula.
TEST(HalfKernelTest, Float64IsRoundedOnce) {
  std::mt19937_64 random(11);
  std::uniform_int_distribution<int> pattern(0, 0x7bfe);
  std::uniform_int_distribution<int> tiny(-2, 2);
  for (int k = 0; k < 200000; ++k) {
    const uint16_t low = static_cast<uint16_t>(pattern(random));
    const double a = to_float(Half{low}), b = to_float(Half{static_cast<uint16_t>(low + 1)});
    // The tie, and doubles next to it: float32 cannot tell them apart.
    double value = (a + b) / 2;
    const int steps = tiny(random);
    for (int s = 0; s < std::abs(steps); ++s) value = std::nextafter(value, steps > 0 ? b : a);
    const uint16_t expected = steps < 0 || (steps == 0 && low % 2 == 0) ? low : low + 1;
    ASSERT_EQ(to_half(value).bits, expected) << value;
    ASSERT_EQ(to_half(-value).bits, expected | 0x8000);
  }
  EXPECT_EQ(to_half(65519.999999999).bits, 0x7bff);
  EXPECT_EQ(to_half(65520.0).bits, 0x7c00);
  EXPECT_EQ(to_half(1e300).bits, 0x7c00);
  EXPECT_EQ(to_half(-double{INFINITY}).bits, 0xfc00);
  EXPECT_GT(to_half(double{NAN}).bits & 0x7fff, 0x7c00);
}

TEST(HalfPlanTest, RefusesWhatItCannotDo) {
  HalfPlan plan;
  EXPECT_EQ(make_half_plan(-1, DType::kFloat32, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_half_plan(4, DType::kInt32, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_half_plan(int64_t{1} << 61, DType::kFloat32, &plan), Status::kOverflow);
  ASSERT_EQ(make_half_plan(0, DType::kFloat64, &plan), Status::kOk);
  EXPECT_EQ(plan.unit_count, 0);
}

}  // namespace
}  // namespace qvlmem
