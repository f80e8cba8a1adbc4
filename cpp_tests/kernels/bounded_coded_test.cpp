// SPDX-License-Identifier: Apache-2.0
// The coded form: how small it is, and what its units hold.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/bounded_driver.h"
#include "cpp_tests/kernels/bounded_values.h"
#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {
namespace {

// Bits a value of the integers, were each coded by its own probability.
double entropy(const std::vector<float>& x, float step) {
  std::map<int32_t, double> counts;
  for (const float v : x) ++counts[bounded_quantize(v, bounded_step(step))];
  double bits = 0;
  for (const auto& [q, count] : counts) bits -= count * std::log2(count / x.size());
  return bits / x.size();
}

TEST(BoundedCodedTest, CodedBitsComeNearTheEntropy) {
  const int64_t n = 150000;
  BoundedPlan plan, coded_plan;
  ASSERT_EQ(make_bounded_plan(1, n, BoundedForm::kPacked, &plan), Status::kOk);
  ASSERT_EQ(make_bounded_plan(1, n, BoundedForm::kCoded, &coded_plan), Status::kOk);
  for (Values kind : {Values::kGaussian, Values::kLaplace, Values::kTiny})
    for (double max_error : {0.2, 0.05, 0.01, 0.001, 1e-5}) {
      SCOPED_TRACE("values " + std::to_string(int(kind)) + " max_error " +
                   std::to_string(max_error));
      const auto bytes = sample(kind, n, DType::kFloat32);
      std::vector<float> x(n);
      std::memcpy(x.data(), bytes.data(), n * sizeof(float));
      BoundedEncoded packed, coded;
      ASSERT_EQ(bounded_encode(plan, x.data(), DType::kFloat32,
                               {BoundedNorm::kFrobenius, max_error}, &packed),
                Status::kOk);
      ASSERT_EQ(bounded_code(coded_plan, x.data(), DType::kFloat32, packed, &coded), Status::kOk);
      // Where there are more integers than values, these tell no entropy.
      const double most =
          max_error >= 0.001 ? entropy(x, packed.step[0]) : 8.0 * packed.packed.size() / n - 0.8;
      // Of whole bits for symbols, and of tables.
      EXPECT_LE(8.0 * coded.packed.size() / n, most + 0.1);
      int64_t estimate = 0, real = 0;
      for (int64_t u = 0; u < coded_plan.unit_count; ++u) {
        int64_t unit = 0;
        ASSERT_EQ(bounded_estimate_cpu(coded_plan, x.data(), DType::kFloat32, packed.step.data(), u,
                                       &unit),
                  Status::kOk);
        estimate += unit;
        real += coded.bytes[u];
      }
      EXPECT_LE(real, estimate);
      if (max_error <= 0.05) {
        EXPECT_EQ(real, estimate) << "all units coded";
      }
    }
}

// Codes have 11 bits at most: a tail of many rare symbols would take its share from all others.
TEST(BoundedCodedTest, ATailOfRareSymbolsDoesNotCrowdTheOthers) {
  const int64_t n = 131072;
  std::mt19937 random(6);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> x(n);
  for (auto& v : x) v = 4.0f * normal(random) * std::exp(0.8f * normal(random));
  BoundedPlan plan;
  ASSERT_EQ(make_bounded_plan(1, n, BoundedForm::kCoded, &plan), Status::kOk);
  BoundedEncoded given, coded;
  given.step.assign(1, 1.0f);
  ASSERT_EQ(bounded_code(plan, x.data(), DType::kFloat32, given, &coded), Status::kOk);
  EXPECT_LE(8.0 * coded.packed.size() / n, entropy(x, 1.0f) + 0.08);
}

// Units in one encoding that differ in mode, and escapes up to the largest integers.
TEST(BoundedCodedTest, EachUnitOfTheCodedFormTakesTheModeThatSuitsIt) {
  const int64_t n = 32768;
  std::vector<float> x(4 * n, 0.0f);
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 30.0f);
  for (int64_t i = 0; i < n; ++i) {
    x[n + i] = normal(random);
    x[2 * n + i] = i % 50 == 0 ? 1e9f * (i % 100 ? 1 : -1) : normal(random);
    x[3 * n + i] = i % 3 == 0 ? 1e9f : normal(random);
  }
  const std::vector<float> step(1, 1.0f);
  BoundedPlan plan;
  ASSERT_EQ(make_bounded_plan(1, 4 * n, BoundedForm::kCoded, &plan), Status::kOk);
  ASSERT_EQ(plan.unit_count, 4);
  BoundedEncoded given, e;
  given.step = step;
  ASSERT_EQ(bounded_code(plan, x.data(), DType::kFloat32, given, &e), Status::kOk);
  const uint8_t modes[] = {0, 1, 1, 0};  // zeros; symbols; some escapes; too many
  int64_t at = 0;
  for (int u = 0; u < 4; ++u) {
    EXPECT_EQ(e.packed[at], modes[u]) << u;
    at += e.bytes[u];
  }
  std::vector<uint8_t> y;
  ASSERT_EQ(bounded_decode(plan, e, DType::kFloat32, &y), Status::kOk);
  for (int64_t i = 0; i < 4 * n; ++i) {
    ASSERT_LE(std::fabs(value_at(y, DType::kFloat32, i) - x[i]), 0.5f) << i;
  }
  x[2 * n + 100] = NAN;
  EXPECT_EQ(bounded_code(plan, x.data(), DType::kFloat32, given, &e), Status::kInvalidArgument);
}

}  // namespace
}  // namespace qvlmem
