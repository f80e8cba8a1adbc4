// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/quantize_driver.h"
#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/quantize/quantize.h"

namespace qvlmem {
namespace {

TEST(QuantizeKernelTest, DecodesWithinHalfAStepAndAlikeOnEveryIsa) {
  for (const QuantizeCase& c : quantize_cases()) {
    SCOPED_TRACE(name_of(c));
    QuantizePlan plan;
    ASSERT_EQ(make_quantize_plan(c.rows, c.cols, c.bits, c.symmetric, c.group, &plan), Status::kOk);
    const auto x = as_dtype(quantize_sample(c.rows * c.cols, 5), c.dtype);
    QuantizedParts reference;
    std::vector<uint8_t> reference_y;
    for_each_isa([&](Isa isa) {
      const QuantizedParts e = quantize_on_cpu(plan, x.data(), c.dtype);
      std::vector<uint8_t> y(c.rows * c.cols * 4 + 1, 0xcc);
      for (int64_t u = plan.unit_count; u-- > 0;) {
        dequantize_cpu(plan, e.q.data(), e.scale.data(), e.zero.data(), u, u + 1, y.data(),
                       DType::kFloat32);
      }
      if (isa == Isa::kPortable) {
        reference = e;
        reference_y = y;
      }
      EXPECT_TRUE(e == reference);
      EXPECT_EQ(y, reference_y);
      for (int64_t i = 0; i < c.rows * c.cols; ++i) {
        const double scale = e.scale[group_of(plan, i / plan.cols, i % plan.cols)];
        const double error =
            std::fabs(double{value_at(x, c.dtype, i)} - double{value_at(y, DType::kFloat32, i)});
        ASSERT_LE(error, 0.5 * scale * (1 + 0x1p-13)) << "element " << i;
      }
    });
  }
}

TEST(QuantizeKernelTest, StochasticRoundingIsUnbiasedRepeatableAndSplitsAnywhere) {
  const int64_t n = 100000;
  std::vector<float> x(n, 0.3f);
  x[0] = 127.0f;  // scale 1
  QuantizePlan plan;
  ASSERT_EQ(make_quantize_plan(1, n, 8, true, 0, &plan), Status::kOk);
  const uint64_t seed = 42;
  QuantizedParts reference;
  for_each_isa([&](Isa isa) {
    const QuantizedParts e = quantize_on_cpu(plan, x.data(), DType::kFloat32, &seed);
    if (isa == Isa::kPortable) reference = e;
    EXPECT_TRUE(e == reference);
    double sum = 0;
    for (int64_t i = 1; i < n; ++i) {
      ASSERT_LE(e.q[i], 1);
      sum += e.q[i];
    }
    EXPECT_NEAR(sum / (n - 1), 0.3, 5 * std::sqrt(0.21 / n));
  });
}

TEST(QuantizeKernelTest, SpecialGroups) {
  QuantizePlan plan;
  for (bool symmetric : {true, false}) {
    for (int bits : {8, 4}) {
      ASSERT_EQ(make_quantize_plan(4, 64, bits, symmetric, -1, &plan), Status::kOk);
      std::vector<float> x(256, 0.0f);
      for (int i = 64; i < 128; ++i) x[i] = i % 2 ? kFloat32Max : -kFloat32Max;
      for (int i = 128; i < 192; ++i) x[i] = 1e-44f;
      for (int i = 192; i < 256; ++i) x[i] = 7.0f;
      const QuantizedParts e = quantize_on_cpu(plan, x.data(), DType::kFloat32);
      std::vector<float> y(256);
      dequantize_cpu(plan, e.q.data(), e.scale.data(), e.zero.data(), 0, plan.unit_count, y.data(),
                     DType::kFloat32);
      EXPECT_EQ(e.scale[0], 1.0f);
      EXPECT_EQ(e.scale[2], kFloat32MinNormal);
      for (int i = 0; i < 256; ++i) {
        EXPECT_TRUE(std::isfinite(y[i]));
        EXPECT_LE(std::fabs(double{x[i]} - y[i]), 0.5 * e.scale[i / 64] * (1 + 0x1p-13));
      }
    }
  }
}

TEST(QuantizeKernelTest, RefusesNonFinite) {
  for (float bad : {float(NAN), float(INFINITY), -float(INFINITY)}) {
    for (int64_t at : {0, 63, 4303}) {
      std::vector<float> x(4304, 1.0f);
      x[at] = bad;
      for_each_isa([&](Isa) {
        QuantizePlan plan;
        ASSERT_EQ(make_quantize_plan(1, 4304, 8, true, 128, &plan), Status::kOk);
        std::vector<int8_t> q(4304);
        std::vector<float> scale(plan.group_count);
        EXPECT_EQ(quantize_encode_cpu(plan, x.data(), DType::kFloat32, 0, plan.unit_count, nullptr,
                                      q.data(), scale.data(), nullptr),
                  Status::kNonFinite);
      });
    }
  }
}

TEST(QuantizePlanTest, RefusesWhatItCannotDo) {
  QuantizePlan plan;
  EXPECT_EQ(make_quantize_plan(4, 4, 5, true, 0, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_quantize_plan(4, 4, 8, true, -2, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_quantize_plan(-1, 4, 8, true, 0, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_quantize_plan(int64_t{1} << 40, int64_t{1} << 40, 8, true, 0, &plan),
            Status::kOverflow);
  ASSERT_EQ(make_quantize_plan(3, 0, 4, true, 32, &plan), Status::kOk);
  EXPECT_EQ(plan.unit_count, 0);
  EXPECT_EQ(plan.group_count, 0);
}

}  // namespace
}  // namespace qvlmem
