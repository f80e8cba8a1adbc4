// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/bounded_driver.h"
#include "cpp_tests/kernels/bounded_values.h"
#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

// How far the worst row is from its bound, computed as the contract defines it.
double worst_excess(const BoundedPlan& plan, const std::vector<uint8_t>& x,
                    const std::vector<uint8_t>& y, DType dtype, const BoundedTarget& target) {
  double worst = 0;
  for (int64_t r = 0; r < plan.rows; ++r) {
    double error = 0, norm = 0;
    for (int64_t i = r * plan.cols; i < (r + 1) * plan.cols; ++i) {
      const double a = value_at(x, dtype, i), d = a - double{value_at(y, dtype, i)};
      EXPECT_TRUE(std::isfinite(d));
      if (target.norm == BoundedNorm::kElement) {
        error = std::max(error, std::fabs(d));
        norm = std::max(norm, std::fabs(a));
      } else {
        error += d * d;
        norm += a * a;
      }
    }
    if (norm == 0) {
      EXPECT_EQ(error, 0) << "a row of zeros came back otherwise";
      continue;
    }
    const double ratio =
        target.norm == BoundedNorm::kElement ? error / norm : std::sqrt(error / norm);
    worst = std::max(worst, ratio / target.max_error);
  }
  return worst;
}

struct Shape {
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {{1, 1},    {3, 72},  {2, 4304},  {5, 31},
                             {67, 129}, {300, 1}, {1, 33000}, {2, 40001}};

TEST(BoundedKernelTest, KeepsEveryBoundAndGivesTheSameBytesOnEveryIsa) {
  for (const Shape& shape : kShapes)
    for (DType dtype : kDTypes)
      for (Values kind : kAllValues) {
        const auto x = sample(kind, shape.rows * shape.cols, dtype);
        BoundedPlan plan, coded_plan;
        ASSERT_EQ(make_bounded_plan(shape.rows, shape.cols, BoundedForm::kPacked, &plan),
                  Status::kOk);
        ASSERT_EQ(make_bounded_plan(shape.rows, shape.cols, BoundedForm::kCoded, &coded_plan),
                  Status::kOk);
        for (double max_error : {1.0, 0.5, 0.01, 0.0003, 1e-7})
          for (BoundedNorm norm : {BoundedNorm::kFrobenius, BoundedNorm::kElement}) {
            SCOPED_TRACE(std::to_string(shape.rows) + "x" + std::to_string(shape.cols) + " dtype " +
                         std::to_string(int(dtype)) + " values " + std::to_string(int(kind)) +
                         " max_error " + std::to_string(max_error) + " norm " +
                         std::to_string(int(norm)));
            const BoundedTarget target{norm, max_error, shape.rows % 2 == 1};
            BoundedEncoded reference, coded_reference;
            std::vector<uint8_t> reference_y;
            for_each_isa([&](Isa isa) {
              BoundedEncoded e;
              ASSERT_EQ(bounded_encode(plan, x.data(), dtype, target, &e), Status::kOk);
              std::vector<uint8_t> y;
              ASSERT_EQ(bounded_decode(plan, e, dtype, &y), Status::kOk);
              BoundedEncoded coded;
              std::vector<uint8_t> coded_y;
              ASSERT_EQ(bounded_code(coded_plan, x.data(), dtype, e, &coded), Status::kOk);
              ASSERT_EQ(bounded_decode(coded_plan, coded, dtype, &coded_y), Status::kOk);
              if (isa == Isa::kPortable) {
                reference = e;
                reference_y = y;
                coded_reference = coded;
                EXPECT_LE(worst_excess(plan, x, y, dtype, target), 1.0);
              }
              EXPECT_TRUE(e == reference);
              EXPECT_EQ(y, reference_y);
              EXPECT_TRUE(coded == coded_reference);
              EXPECT_EQ(coded_y, reference_y) << "the forms hold the same integers";
            });
          }
      }
}

TEST(BoundedKernelTest, MeasuresTheErrorThatDecodingLeaves) {
  const int64_t n = 50000;
  BoundedPlan plan;
  ASSERT_EQ(make_bounded_plan(1, n, BoundedForm::kPacked, &plan), Status::kOk);
  for (Values kind : kAllValues)
    for (DType dtype : kDTypes) {
      const auto x = sample(kind, n, dtype);
      BoundedEncoded e;
      ASSERT_EQ(bounded_encode(plan, x.data(), dtype, {BoundedNorm::kFrobenius, 0.02}, &e),
                Status::kOk);
      std::vector<uint8_t> y;
      ASSERT_EQ(bounded_decode(plan, e, dtype, &y), Status::kOk);
      double error = 0, norm = 0, largest = 0;
      for (int64_t i = 0; i < n; ++i) {
        const double a = value_at(x, dtype, i), d = a - double{value_at(y, dtype, i)};
        error += d * d;
        norm += a * a;
        largest = std::max(largest, std::fabs(d));
      }
      BoundedMoments moments;
      BoundedError measured;
      for (int64_t u = 0; u < plan.unit_count; ++u) {
        BoundedMoments m;
        BoundedError d;
        bounded_moments_cpu(plan, x.data(), dtype, u, u + 1, &m);
        bounded_measure_cpu(plan, x.data(), dtype, e.step.data(), u, u + 1, &d, nullptr);
        bounded_add(m, &moments);
        bounded_add(d, &measured);
      }
      EXPECT_NEAR(measured.sum_squares, error, 1e-6 * error);
      EXPECT_NEAR(moments.sum_squares, norm, 1e-12 * norm);
      EXPECT_NEAR(measured.max, largest, 1e-6 * largest);
    }
}

// How near the bound the step comes, and how many looks at x that takes.
TEST(BoundedKernelTest, TheStepIsNearlyAsLargeAsTheBoundAllows) {
  const int64_t n = 200000;
  BoundedPlan plan;
  ASSERT_EQ(make_bounded_plan(1, n, BoundedForm::kPacked, &plan), Status::kOk);
  for (Values kind :
       {Values::kGaussian, Values::kLaplace, Values::kOutliers, Values::kSparse, Values::kTiny})
    for (DType dtype : {DType::kFloat32, DType::kBFloat16})
      for (double max_error : {0.9, 0.5, 0.2, 0.05, 0.01, 0.003}) {
        SCOPED_TRACE("values " + std::to_string(int(kind)) + " dtype " +
                     std::to_string(int(dtype)) + " max_error " + std::to_string(max_error));
        if (kind == Values::kTiny && dtype != DType::kFloat32) continue;  // a grid of 1/40
        const auto x = sample(kind, n, dtype);
        const BoundedTarget target{BoundedNorm::kFrobenius, max_error};
        BoundedEncoded e;
        ASSERT_EQ(bounded_encode(plan, x.data(), dtype, target, &e), Status::kOk);
        EXPECT_LE(e.excess, 1.0);
        EXPECT_GE(e.excess, 0.9);
        // The uniform model fits at once where steps are small against the values.
        const bool high_rate =
            max_error <= 0.05 && kind != Values::kOutliers && kind != Values::kSparse;
        EXPECT_LE(e.measurements, high_rate && dtype == DType::kFloat32 ? 2 : kBoundedTries);
      }
}

TEST(BoundedKernelTest, ShortStepsAreNearlyAsLong) {
  const int64_t rows = 300, cols = 72;
  BoundedPlan plan;
  ASSERT_EQ(make_bounded_plan(rows, cols, BoundedForm::kPacked, &plan), Status::kOk);
  for (Values kind : {Values::kGaussian, Values::kOutliers, Values::kHuge})
    for (double max_error : {0.2, 0.01, 1e-4}) {
      const auto x = sample(kind, rows * cols, DType::kFloat32);
      BoundedEncoded whole, shorter;
      ASSERT_EQ(bounded_encode(plan, x.data(), DType::kFloat32,
                               {BoundedNorm::kFrobenius, max_error}, &whole),
                Status::kOk);
      ASSERT_EQ(bounded_encode(plan, x.data(), DType::kFloat32,
                               {BoundedNorm::kFrobenius, max_error, true}, &shorter),
                Status::kOk);
      double gain = 0;
      for (int64_t r = 0; r < rows; ++r) {
        EXPECT_EQ(bounded_shorter(shorter.step[r]), shorter.step[r]);
        gain += std::log2(shorter.step[r] / whole.step[r]);
      }
      EXPECT_GE(gain / rows, -0.03) << "bits a value";
    }
}

TEST(BoundedKernelTest, BitsAreThoseOfTheBlocksOwnRange) {
  // Gaussian at 1%: log2(sigma / step) + 2.05 bits of entropy, 6.9 bits; packed widths within 1.1.
  const int64_t n = 100000;
  const auto x = sample(Values::kGaussian, n, DType::kFloat32);
  BoundedPlan plan;
  ASSERT_EQ(make_bounded_plan(1, n, BoundedForm::kPacked, &plan), Status::kOk);
  BoundedEncoded e;
  ASSERT_EQ(bounded_encode(plan, x.data(), DType::kFloat32, {BoundedNorm::kFrobenius, 0.01}, &e),
            Status::kOk);
  EXPECT_LE(8.0 * e.packed.size() / n, 8.0);
  // Signs alone take two bits (-1..1) and a header.
  std::vector<float> signs(n);
  for (int64_t i = 0; i < n; ++i) signs[i] = value_at(x, DType::kFloat32, i) < 0 ? -0.7f : 0.7f;
  ASSERT_EQ(
      bounded_encode(plan, signs.data(), DType::kFloat32, {BoundedNorm::kFrobenius, 0.01}, &e),
      Status::kOk);
  EXPECT_LE(8.0 * e.packed.size() / n, 2.3);
  // Zeros cost their headers.
  const std::vector<float> zero(n, 0.0f);
  ASSERT_EQ(bounded_encode(plan, zero.data(), DType::kFloat32, {BoundedNorm::kFrobenius, 0.01}, &e),
            Status::kOk);
  EXPECT_LE(e.packed.size(), n / 32 + 2 * plan.unit_count);
}

TEST(BoundedKernelTest, RowsOfZerosAmongOthersComeBackZero) {
  std::vector<float> x(40 * 50, 0.0f);
  for (int i = 0; i < 50; ++i) x[7 * 50 + i] = 1e-30f * i, x[20 * 50 + i] = 1e30f * i;
  x[3] = -0.0f;
  BoundedPlan plan;
  ASSERT_EQ(make_bounded_plan(40, 50, BoundedForm::kPacked, &plan), Status::kOk);
  const BoundedTarget target{BoundedNorm::kFrobenius, 0.001};
  BoundedEncoded e;
  ASSERT_EQ(bounded_encode(plan, x.data(), DType::kFloat32, target, &e), Status::kOk);
  std::vector<uint8_t> y;
  ASSERT_EQ(bounded_decode(plan, e, DType::kFloat32, &y), Status::kOk);
  std::vector<uint8_t> bytes(x.size() * 4 + 1);
  std::memcpy(bytes.data(), x.data(), x.size() * 4);
  EXPECT_LE(worst_excess(plan, bytes, y, DType::kFloat32, target), 1.0);
}

TEST(BoundedKernelTest, RefusesWhatItCannotKeep) {
  BoundedPlan plan;
  BoundedEncoded e;
  for (int64_t n : {100, 50000}) {
    ASSERT_EQ(make_bounded_plan(1, n, BoundedForm::kPacked, &plan), Status::kOk);
    for (float bad : {float(NAN), float(INFINITY), -float(INFINITY)}) {
      for_each_isa([&](Isa) {
        std::vector<float> x(n, 1.0f);
        x[n - 1] = bad;
        EXPECT_EQ(
            bounded_encode(plan, x.data(), DType::kFloat32, {BoundedNorm::kFrobenius, 0.01}, &e),
            Status::kNonFinite);
      });
    }
    const auto x = sample(Values::kGaussian, n, DType::kFloat32);
    EXPECT_EQ(bounded_encode(plan, x.data(), DType::kFloat32, {BoundedNorm::kFrobenius, 1e-12}, &e),
              Status::kBoundMissed);
  }
}

// x that changes between the two looks, under another thread's hand: refused, and nothing is
// written outside the units' places.
TEST(BoundedKernelTest, RefusesAnXThatIsNotTheMeasuredOne) {
  BoundedPlan plan;
  BoundedEncoded e;
  for (int64_t n : {100, 50000}) {
    ASSERT_EQ(make_bounded_plan(1, n, BoundedForm::kPacked, &plan), Status::kOk);
    for (float before : {1.0f, 1.5f}) {
      std::vector<float> x(n, 1.0f);
      x[n - 1] = before;
      ASSERT_EQ(
          bounded_encode(plan, x.data(), DType::kFloat32, {BoundedNorm::kFrobenius, 0.01}, &e),
          Status::kOk);
      std::vector<int64_t> offset(plan.unit_count + 1);
      bounded_offsets(plan, e.bytes.data(), static_cast<int64_t>(e.packed.size()), offset.data());
      for (float after : {1.0f, 1.5f, 1e30f, float(NAN), float(INFINITY)}) {
        x[n - 1] = after;
        for_each_isa([&](Isa) {
          EXPECT_EQ(bounded_encode_cpu(plan, x.data(), DType::kFloat32, e.step.data(),
                                       offset.data(), 0, plan.unit_count, e.packed.data()),
                    before == after ? Status::kOk : Status::kInvalidArgument)
              << before << " became " << after;
        });
      }
    }
  }
}

TEST(BoundedMathTest, StepsOfEverySizeQuantize) {
  for (int exponent = -149; exponent <= 127; ++exponent) {
    const float step = std::ldexp(1.0f, exponent) * (exponent > -140 ? 1.7f : 1.0f);
    const BoundedStep s = bounded_step(step);
    EXPECT_GE(s.inverse, kFloat32MinNormal) << exponent;
    for (int32_t k : {0, 1, -1, 2, 1000, 4194305}) {
      const float value = static_cast<float>(k) * step;
      if (!std::isfinite(value)) continue;
      // Two roundings, each of 2^-24.
      EXPECT_NEAR(bounded_quantize(value, s), k, std::abs(k) * 0x1p-22) << exponent;
    }
  }
  const BoundedStep one = bounded_step(1.0f);
  EXPECT_EQ(bounded_quantize(2.5f, one), 2);
  EXPECT_EQ(bounded_quantize(-3.5f, one), -4);
  EXPECT_EQ(bounded_quantize(0.49999997f, one), 0);
  EXPECT_EQ(bounded_quantize(8388607.5f, one), 8388608);
  EXPECT_EQ(bounded_quantize(3e38f, one), 1 << 30);
  EXPECT_EQ(bounded_quantize(-float(INFINITY), one), -(1 << 30));
}

TEST(BoundedPlanTest, CutsIntoUnitsThatCoverEverything) {
  for (const Shape& shape :
       {Shape{0, 5}, Shape{5, 0}, Shape{1, 1}, Shape{9000, 1}, Shape{100, 4304}, Shape{3, 32768},
        Shape{3, 32769}, Shape{1, 100000}}) {
    for (BoundedForm form : {BoundedForm::kPacked, BoundedForm::kCoded}) {
      BoundedPlan plan;
      ASSERT_EQ(make_bounded_plan(shape.rows, shape.cols, form, &plan), Status::kOk);
      int64_t at = 0;
      for (int64_t u = 0; u < plan.unit_count; ++u) {
        const BoundedUnit unit = bounded_unit(plan, u);
        EXPECT_EQ(unit.begin, at);
        EXPECT_GT(unit.end, unit.begin);
        EXPECT_EQ(unit.row_begin, unit.begin / plan.cols);
        EXPECT_EQ(unit.row_end, (unit.end - 1) / plan.cols + 1);
        at = unit.end;
      }
      EXPECT_EQ(at, shape.rows * shape.cols);
    }
  }
  BoundedPlan plan;
  EXPECT_EQ(make_bounded_plan(-1, 4, BoundedForm::kPacked, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_bounded_plan(int64_t{1} << 40, int64_t{1} << 40, BoundedForm::kPacked, &plan),
            Status::kOverflow);
}

}  // namespace
}  // namespace qvlmem
