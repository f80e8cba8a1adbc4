// SPDX-License-Identifier: Apache-2.0
// Damaged bytes: an error or wrong values, but never a crash, a look outside the bytes, or a value
// that is not finite.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cpp_tests/kernels/bounded_driver.h"
#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {
namespace {

struct Sample {
  BoundedPlan plan;
  BoundedEncoded encoded;
};

constexpr BoundedForm kForms[] = {BoundedForm::kPacked, BoundedForm::kCoded};

// Two packed units with blocks of several widths and kinds, or one coded unit with escapes; a short
// last block.
Sample make_sample(BoundedForm form) {
  Sample s;
  EXPECT_EQ(make_bounded_plan(90, 129, BoundedForm::kPacked, &s.plan), Status::kOk);
  EXPECT_EQ(s.plan.unit_count, 2);
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> x(90 * 129);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t row = i / 129;
    if (form == BoundedForm::kCoded) {
      x[i] = normal(random) * (i % 90 == 0 ? 50.0f : 1.0f);
      continue;
    }
    x[i] = row % 5 == 0 ? 0.0f : (row % 5 == 1 ? 50.0f + 0.01f * normal(random) : normal(random));
  }
  EXPECT_EQ(bounded_encode(s.plan, x.data(), DType::kFloat32, {BoundedNorm::kFrobenius, 0.003},
                           &s.encoded),
            Status::kOk);
  if (form == BoundedForm::kPacked) return s;
  const BoundedEncoded packed = s.encoded;
  EXPECT_EQ(make_bounded_plan(90, 129, form, &s.plan), Status::kOk);
  EXPECT_EQ(bounded_code(s.plan, x.data(), DType::kFloat32, packed, &s.encoded), Status::kOk);
  EXPECT_EQ(s.plan.unit_count, 1);
  EXPECT_EQ(s.encoded.packed[0], uint8_t{1});
  EXPECT_GT(s.encoded.packed[1], 0) << "lowest bits";
  EXPECT_GT(s.encoded.packed[2], 32) << "escapes";
  EXPECT_EQ(s.encoded.packed[3] + s.encoded.packed[4] + s.encoded.packed[5], 0);
  return s;
}

Status decode_unit(const Sample& s, const std::vector<uint8_t>& bytes, int64_t unit,
                   std::vector<uint8_t>* y) {
  std::vector<int64_t> offset(s.plan.unit_count + 1, 0);
  for (int64_t u = unit + 1; u <= s.plan.unit_count; ++u) {
    offset[u] = static_cast<int64_t>(bytes.size());
  }
  y->assign(s.plan.rows * s.plan.cols * 4, 0);
  return bounded_decode_cpu(s.plan, bytes.data(), offset.data(), s.encoded.step.data(), unit,
                            unit + 1, y->data(), DType::kFloat32);
}

void expect_finite(const std::vector<uint8_t>& y) {
  for (size_t i = 0; i < y.size() / 4; ++i) {
    ASSERT_TRUE(std::isfinite(value_at(y, DType::kFloat32, i)));
  }
}

TEST(BoundedHostileTest, EveryTruncationIsRefused) {
  const Sample s = make_sample(BoundedForm::kPacked);
  const auto first = s.encoded.packed.begin();
  const std::vector<uint8_t> unit(first, first + s.encoded.bytes[0]);
  for_each_isa([&](Isa isa) {
    std::vector<uint8_t> y;
    EXPECT_EQ(decode_unit(s, unit, 0, &y), Status::kOk);
    const size_t stride = isa == Isa::kPortable ? 97 : 1;
    for (size_t length = 0; length < unit.size(); length += stride) {
      const std::vector<uint8_t> cut(unit.begin(), unit.begin() + length);
      ASSERT_EQ(decode_unit(s, cut, 0, &y), Status::kTruncated) << length;
    }
    std::vector<uint8_t> longer(unit);
    longer.push_back(0);
    EXPECT_EQ(decode_unit(s, longer, 0, &y), Status::kCorrupt);
  });
}

TEST(BoundedHostileTest, EveryTruncationOfACodedUnitIsRefused) {
  const Sample s = make_sample(BoundedForm::kCoded);
  const std::vector<uint8_t>& unit = s.encoded.packed;
  for_each_isa([&](Isa isa) {
    std::vector<uint8_t> y;
    EXPECT_EQ(decode_unit(s, unit, 0, &y), Status::kOk);
    const size_t stride = isa == Isa::kPortable ? 97 : 1;
    for (size_t length = 0; length < unit.size(); length += stride) {
      const std::vector<uint8_t> cut(unit.begin(), unit.begin() + length);
      const Status status = decode_unit(s, cut, 0, &y);
      ASSERT_TRUE(status == Status::kTruncated || status == Status::kCorrupt) << length;
    }
    std::vector<uint8_t> longer(unit);
    longer.push_back(0);
    EXPECT_EQ(decode_unit(s, longer, 0, &y), Status::kCorrupt);
  });
}

TEST(BoundedHostileTest, EscapesMustBeAsManyAsTheSymbolsSay) {
  const Sample s = make_sample(BoundedForm::kCoded);
  std::vector<uint8_t> unit = s.encoded.packed, y;
  for (const int change : {-1, 1}) {  // within the same number of blocks
    ASSERT_NE((unit[2] + 31) / 32, unit[2] / 32) << "a full last block";
    unit[2] = static_cast<uint8_t>(unit[2] + change);
    EXPECT_EQ(decode_unit(s, unit, 0, &y), Status::kCorrupt) << change;
    unit[2] = static_cast<uint8_t>(unit[2] - change);
  }
  EXPECT_EQ(decode_unit(s, unit, 0, &y), Status::kOk);
  unit[5] = 0x80;  // more than there are values
  EXPECT_EQ(decode_unit(s, unit, 0, &y), Status::kCorrupt);
  unit[5] = 0;
  for (int low : {25, 32, 255}) {
    unit[1] = static_cast<uint8_t>(low);
    EXPECT_EQ(decode_unit(s, unit, 0, &y), Status::kCorrupt) << low;
  }
}

TEST(BoundedHostileTest, FlippedBitsGiveAnErrorOrFiniteValues) {
  for (const BoundedForm form : kForms) {
    const Sample s = make_sample(form);
    const auto first = s.encoded.packed.begin();
    std::vector<uint8_t> unit(first, first + s.encoded.bytes[0]);
    // The mode and the headers are 257 bytes of a packed unit, the symbols a part of a coded one:
    // flip in such parts as often as anywhere.
    const bool packed = form == BoundedForm::kPacked;
    const size_t part = packed ? 257 : 6, from = packed ? 0 : unit.size() - 300;
    std::mt19937 random(5);
    for_each_isa([&](Isa isa) {
      std::vector<uint8_t> y;
      int refused = 0;
      const int rounds = isa == Isa::kPortable ? 300 : 3000;
      for (int round = 0; round < rounds; ++round) {
        size_t at = random() % part;
        if (round % 2 == 0) at = from + random() % (unit.size() - from);
        if (round % 8 == 1) at = random() % unit.size();
        const auto bit = static_cast<uint8_t>(1u << random() % 8);
        unit[at] ^= bit;
        const Status status = decode_unit(s, unit, 0, &y);
        if (status == Status::kOk) {
          expect_finite(y);
        } else {
          ++refused;
        }
        unit[at] ^= bit;
      }
      EXPECT_GT(refused, rounds / 4);
    });
  }
}

TEST(BoundedHostileTest, UnknownModesAreUnsupported) {
  for (const BoundedForm form : kForms) {
    const Sample s = make_sample(form);
    const auto first = s.encoded.packed.begin();
    std::vector<uint8_t> unit(first, first + s.encoded.bytes[0]), y;
    // A packed unit is at home in both forms, a coded one in its own.
    for (int mode = form == BoundedForm::kPacked ? 1 : 2; mode < 256; ++mode) {
      unit[0] = static_cast<uint8_t>(mode);
      EXPECT_EQ(decode_unit(s, unit, 0, &y), Status::kUnsupported);
    }
  }
}

TEST(BoundedHostileTest, StepsThatAreNoStepsAreRefusedAndHugeOnesSaturate) {
  for (const BoundedForm form : kForms) {
    Sample s = make_sample(form);
    std::vector<uint8_t> y;
    const float good = s.encoded.step[1];
    for (float bad : {0.0f, -1.0f, float(NAN), float(INFINITY), -0.0f}) {
      s.encoded.step[1] = bad;
      EXPECT_EQ(bounded_decode(s.plan, s.encoded, DType::kFloat32, &y), Status::kCorrupt);
    }
    s.encoded.step[1] = good;
    std::fill(s.encoded.step.begin(), s.encoded.step.end(), kFloat32Max);
    for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
      for_each_isa([&](Isa) {
        ASSERT_EQ(bounded_decode(s.plan, s.encoded, dtype, &y), Status::kOk);
        for (int64_t i = 0; i < s.plan.rows * s.plan.cols; ++i) {
          ASSERT_TRUE(std::isfinite(value_at(y, dtype, i)));
        }
      });
    }
  }
}

TEST(BoundedHostileTest, TheTableOfSizesMustAddUp) {
  const Sample s = make_sample(BoundedForm::kPacked);
  const auto total = static_cast<int64_t>(s.encoded.packed.size());
  std::vector<int64_t> offset(s.plan.unit_count + 1);
  std::vector<int32_t> bytes(s.encoded.bytes);
  EXPECT_EQ(bounded_offsets(s.plan, bytes.data(), total, offset.data()), Status::kOk);
  EXPECT_EQ(bounded_offsets(s.plan, bytes.data(), total - 1, offset.data()), Status::kCorrupt);
  EXPECT_EQ(bounded_offsets(s.plan, bytes.data(), -1, offset.data()), Status::kCorrupt);
  for (int32_t bad : {0, -1, INT32_MIN, INT32_MAX, 256, bytes[0] + 1}) {
    bytes[0] = bad;
    EXPECT_EQ(bounded_offsets(s.plan, bytes.data(), total, offset.data()), Status::kCorrupt) << bad;
  }
  // Sizes that add up and do not fit their units are the decoder's to refuse.
  bytes = s.encoded.bytes;
  --bytes[0];
  ++bytes[1];
  ASSERT_EQ(bounded_offsets(s.plan, bytes.data(), total, offset.data()), Status::kOk);
  std::vector<uint8_t> y(s.plan.rows * s.plan.cols * 4);
  EXPECT_NE(bounded_decode_cpu(s.plan, s.encoded.packed.data(), offset.data(),
                               s.encoded.step.data(), 0, 2, y.data(), DType::kFloat32),
            Status::kOk);
}

}  // namespace
}  // namespace qvlmem
