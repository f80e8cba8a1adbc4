// SPDX-License-Identifier: Apache-2.0
// Every byte that the loops of quantize write, against the formulas applied one element at a time:
// small and beyond the caches, aligned and not, whole and in pieces, and nothing outside.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/base/stream.h"
#include "kernels/quantize/quantize.h"

namespace qvlmem {
namespace {

constexpr uint8_t kUntouched = 0xa5;
constexpr int64_t kGuard = 192;
constexpr DType kTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

// Bytes that begin `shift` after a cache line's first, with bytes before and after them that are to
// stay as they are.
class Guarded {
 public:
  Guarded(int64_t bytes, int64_t shift) : bytes_(bytes), all_(bytes + 2 * kGuard + 64, kUntouched) {
    const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(all_.data()) % 64);
    begin_ = kGuard - past + shift;
  }
  uint8_t* data() { return all_.data() + begin_; }
  std::vector<uint8_t> content() const {
    return {all_.begin() + begin_, all_.begin() + begin_ + bytes_};
  }
  bool guards_hold() const {
    for (int64_t i = 0; i < static_cast<int64_t>(all_.size()); ++i) {
      if ((i < begin_ || i >= begin_ + bytes_) && all_[i] != kUntouched) return false;
    }
    return true;
  }

 private:
  int64_t bytes_, begin_;
  std::vector<uint8_t> all_;
};

struct Case {
  int64_t rows, cols;
  int bits;
  bool symmetric;
  int64_t group;
  DType dtype;
  int64_t shift = 0;  // of q and y from a cache line's beginning, in elements
  bool stochastic = false;
};

std::string name(const Case& c) {
  return std::to_string(c.rows) + "x" + std::to_string(c.cols) + " bits " + std::to_string(c.bits) +
         (c.symmetric ? " symmetric" : " asymmetric") + " group " + std::to_string(c.group) +
         " dtype " + std::to_string(int(c.dtype)) + " shift " + std::to_string(c.shift) +
         (c.stochastic ? " stochastic" : "");
}

QuantizePlan plan_of(const Case& c) {
  QuantizePlan plan;
  EXPECT_EQ(make_quantize_plan(c.rows, c.cols, c.bits, c.symmetric, c.group, &plan), Status::kOk);
  return plan;
}

struct Encoded {
  std::vector<uint8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> zero;
};

constexpr uint64_t kSeed = 77;

int64_t group_of(const QuantizePlan& plan, int64_t i) {
  const int64_t row = i / plan.cols, col = i % plan.cols;
  return plan.per_tensor ? 0 : row * plan.groups_per_row + col / plan.group;
}

// By the formulas alone.
Encoded expected_of(const QuantizePlan& plan, const std::vector<uint8_t>& x, const Case& c) {
  Encoded e;
  std::vector<QuantizeRange> ranges(plan.group_count);
  const int64_t count = plan.rows * plan.cols;
  for (int64_t i = 0; i < count; ++i) {
    const float value = value_at(x, c.dtype, i);
    QuantizeRange& range = ranges[group_of(plan, i)];
    range.min = std::min(range.min, value);
    range.max = std::max(range.max, value);
    range.magnitude_bits = std::max(range.magnitude_bits, float_to_bits(value) & 0x7fffffffu);
  }
  std::vector<QuantizeGroup> groups;
  for (const QuantizeRange& range : ranges) {
    groups.push_back(quantize_group(range, plan.bits, plan.symmetric));
    e.scale.push_back(groups.back().scale);
    if (!plan.symmetric) e.zero.push_back(groups.back().zero_point);
  }
  const int32_t low = quantize_low(plan.bits, plan.symmetric);
  const int32_t high = quantize_high(plan.bits, plan.symmetric);
  e.q.assign(plan.rows * plan.row_bytes, 0);
  for (int64_t i = 0; i < count; ++i) {
    const float value = value_at(x, c.dtype, i);
    const QuantizeGroup& group = groups[group_of(plan, i)];
    const int32_t q = c.stochastic
                          ? quantize_stochastic(value, group, low, high, philox_uniform(kSeed, i))
                          : quantize_nearest(value, group, low, high);
    const int64_t row = i / plan.cols, col = i % plan.cols;
    uint8_t& byte = e.q[row * plan.row_bytes + (plan.bits == 4 ? col / 2 : col)];
    byte = plan.bits == 8 ? static_cast<uint8_t>(q)
                          : static_cast<uint8_t>(byte | (q & 15) << (col % 2 * 4));
  }
  return e;
}

std::vector<uint8_t> expected_values(const QuantizePlan& plan, const Encoded& e, DType dtype) {
  std::vector<uint8_t> y(plan.rows * plan.cols * dtype_bytes(dtype));
  for (int64_t i = 0; i < plan.rows * plan.cols; ++i) {
    const int64_t row = i / plan.cols, col = i % plan.cols;
    const uint8_t byte = e.q[row * plan.row_bytes + (plan.bits == 4 ? col / 2 : col)];
    int32_t q = static_cast<int8_t>(byte);
    if (plan.bits == 4) q = byte >> (col % 2 * 4) & 15;
    if (plan.bits == 4 && plan.symmetric && q > 7) q -= 16;
    const int64_t group = group_of(plan, i);
    const float value = dequantize_value(q, e.scale[group], plan.symmetric ? 0 : e.zero[group]);
    if (dtype == DType::kFloat32) {
      const float kept = from_float_saturating<float>(value);
      std::memcpy(&y[i * 4], &kept, 4);
    } else {
      const uint16_t bits = dtype == DType::kFloat16 ? from_float_saturating<Half>(value).bits
                                                     : from_float_saturating<BFloat16>(value).bits;
      std::memcpy(&y[i * 2], &bits, 2);
    }
  }
  return y;
}

// Calls f(begin, end) for ranges of units that together are all of them, the last one first.
template <class F>
void in_pieces(const QuantizePlan& plan, int64_t pieces, F f) {
  for (int64_t p = pieces; p-- > 0;) {
    f(plan.unit_count * p / pieces, plan.unit_count * (p + 1) / pieces);
  }
}

void check(const Case& c, const std::vector<uint8_t>& x, int64_t pieces) {
  SCOPED_TRACE(name(c) + " pieces " + std::to_string(pieces));
  const QuantizePlan plan = plan_of(c);
  const Encoded expected = expected_of(plan, x, c);
  const std::vector<uint8_t> values = expected_values(plan, expected, c.dtype);
  const uint64_t* seed = c.stochastic ? &kSeed : nullptr;
  for_each_isa([&](Isa) {
    Guarded q(plan.rows * plan.row_bytes, c.shift);
    std::vector<float> scale(plan.group_count, -1.0f);
    std::vector<int32_t> zero(plan.symmetric ? 0 : plan.group_count, -1);
    if (plan.fused) {
      in_pieces(plan, pieces, [&](int64_t begin, int64_t end) {
        ASSERT_EQ(quantize_encode_cpu(plan, x.data(), c.dtype, begin, end, seed, q.data(),
                                      scale.data(), zero.data()),
                  Status::kOk);
      });
      ASSERT_EQ(scale, expected.scale);
      ASSERT_EQ(zero, expected.zero);
    } else {
      in_pieces(plan, pieces, [&](int64_t begin, int64_t end) {
        quantize_encode_scaled_cpu(plan, x.data(), c.dtype, begin, end, seed, expected.scale.data(),
                                   expected.zero.data(), q.data());
      });
    }
    ASSERT_TRUE(q.content() == expected.q);
    ASSERT_TRUE(q.guards_hold());
    Guarded y(static_cast<int64_t>(values.size()), c.shift * dtype_bytes(c.dtype));
    in_pieces(plan, pieces, [&](int64_t begin, int64_t end) {
      dequantize_cpu(plan, q.data(), expected.scale.data(), expected.zero.data(), begin, end,
                     y.data(), c.dtype);
    });
    ASSERT_TRUE(y.content() == values);
    ASSERT_TRUE(y.guards_hold());
  });
}

std::vector<float> sample(int64_t n) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.3f, 2.0f);
  std::vector<float> values(n);
  for (int64_t i = 0; i < n; ++i) values[i] = i < 5003 ? normal(random) : -values[i - 5003];
  return values;
}

TEST(QuantizeBytesTest, SmallShapesOfAllKinds) {
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1},  {3, 72},  {5, 31},   {7, 129},
                                                {40, 1}, {17, 96}, {2, 4304}, {3, 2050}};
  for (auto [rows, cols] : shapes) {
    for (DType dtype : kTypes) {
      const auto x = as_dtype(sample(rows * cols), dtype);
      for (int bits : {8, 4})
        for (bool symmetric : {true, false})
          for (int64_t group : {0, -1, 1, 7, 32, 64, 100, 128, 5000})
            for (bool stochastic : {false, true})
              check({rows, cols, bits, symmetric, group, dtype, rows % 3, stochastic}, x,
                    1 + cols % 3);
    }
  }
}

TEST(QuantizeBytesTest, GroupsOfExtremes) {
  std::vector<float> x;
  for (float value : {0.0f, -0.0f, 1e-45f, 1e-38f, 3e-36f, kFloat32Max, 1.0f, 254.0f}) {
    for (int i = 0; i < 48; ++i)
      x.push_back(i % 3 == 0 ? -value : (i % 3 == 1 ? value : 0.5f * value));
  }
  for (int bits : {8, 4})
    for (bool symmetric : {true, false})
      for (int64_t group : {-1, 24, 16})
        check({8, 48, bits, symmetric, group, DType::kFloat32}, as_dtype(x, DType::kFloat32), 1);
}

// Large enough for all outputs to go past the caches: of rows of whole vectors, and of others.
TEST(QuantizeBytesTest, BeyondTheCaches) {
  for (int64_t cols : {4096, 4304, 1205, 72, 9000}) {
    const int64_t rows = 2 * kStreamBytes / cols + 3;
    const auto x = as_dtype(sample(rows * cols), DType::kFloat32);
    int64_t shift = 0;
    for (int bits : {8, 4}) {
      for (int64_t group : {0, -1, 64, 100}) {
        const bool symmetric = group != 64;
        check({rows, cols, bits, symmetric, group, DType::kFloat32, shift}, x, 1 + shift % 5);
        shift = shift == 0 ? 16 : (shift == 16 ? 3 : 0);
      }
    }
  }
}

TEST(QuantizeBytesTest, BeyondTheCachesIn16Bits) {
  for (DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    for (int64_t cols : {4096, 1205}) {
      const int64_t rows = 2 * kStreamBytes / cols + 3;
      const auto x = as_dtype(sample(rows * cols), dtype);
      for (int bits : {8, 4})
        for (int64_t group : {-1, 128}) check({rows, cols, bits, true, group, dtype}, x, 2);
    }
  }
}

// Of 16 bits half a vector is streamed, too: rows and groups that begin on one.
TEST(QuantizeBytesTest, BeyondTheCachesFromHalfAVector) {
  for (DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    for (int64_t cols : {1000, 1008}) {
      const int64_t rows = kStreamBytes / cols + 3;
      const auto x = as_dtype(sample(rows * cols), dtype);
      for (int64_t group : {-1, 8, 24, 48}) check({rows, cols, 8, true, group, dtype, 8}, x, 2);
    }
  }
}

// A scale that no encoder gives decodes as the formula says, wherever its group ends.
TEST(QuantizeBytesTest, ScalesThatAreNotFinite) {
  for (DType dtype : kTypes) {
    for (int bits : {8, 4}) {
      for (int64_t group : {3, 8, 40, 100}) {
        const Case c{3, 600, bits, group != 40, group, dtype};
        const QuantizePlan plan = plan_of(c);
        Encoded e = expected_of(plan, as_dtype(sample(3 * 600), dtype), c);
        const float bad[] = {float(NAN), float(INFINITY), -float(INFINITY),
                             bits_to_float(0x7fffffffu)};
        for (size_t g = 0; g < e.scale.size(); g += 2) e.scale[g] = bad[g / 2 % 4];
        e.q[0] = e.q[plan.row_bytes] = 0;  // infinity times 0
        const std::vector<uint8_t> values = expected_values(plan, e, dtype);
        for_each_isa([&](Isa) {
          std::vector<uint8_t> y(values.size());
          dequantize_cpu(plan, e.q.data(), e.scale.data(), e.zero.data(), 0, plan.unit_count,
                         y.data(), dtype);
          EXPECT_TRUE(y == values) << name(c);
        });
      }
    }
  }
}

// Groups that are one unit each, and longer than what is ranged and encoded in one go.
TEST(QuantizeBytesTest, LongGroups) {
  for (int64_t cols : {20000, 32768, 70001}) {
    const auto x = as_dtype(sample(3 * cols), DType::kFloat32);
    for (int bits : {8, 4})
      for (int64_t group : {0, -1, 6000, 33333})
        for (bool symmetric : {true, false})
          check({3, cols, bits, symmetric, group, DType::kFloat32, 1}, x, 3);
  }
}

TEST(QuantizeBytesTest, FindsWhatIsNotFiniteAnywhere) {
  const float bad[] = {float(NAN), float(INFINITY), -float(INFINITY)};
  for (const auto& [rows, cols, group] :
       {std::tuple<int64_t, int64_t, int64_t>{3, 77, 32}, {2, 300, -1}, {5, 9, 4}, {1, 200, 100}}) {
    for (DType dtype : kTypes) {
      std::vector<float> values = sample(rows * cols);
      for (int64_t at = 0; at < rows * cols; ++at) {
        const float kept = values[at];
        values[at] = bad[at % 3];
        const auto x = as_dtype(values, dtype);
        values[at] = kept;
        for (bool symmetric : {true, false}) {
          const QuantizePlan plan = plan_of({rows, cols, 8, symmetric, group, dtype});
          std::vector<int8_t> q(rows * cols);
          std::vector<float> scale(plan.group_count);
          std::vector<int32_t> zero(plan.group_count);
          const QuantizePlan whole = plan_of({rows, cols, 8, symmetric, 0, dtype});
          for_each_isa([&](Isa) {
            EXPECT_EQ(quantize_encode_cpu(plan, x.data(), dtype, 0, plan.unit_count, nullptr,
                                          q.data(), scale.data(), zero.data()),
                      Status::kNonFinite)
                << "element " << at;
            QuantizeRange range;
            quantize_range_cpu(whole, x.data(), dtype, 0, 1, &range);
            EXPECT_FALSE(range_is_finite(range)) << "element " << at;
          });
        }
      }
    }
  }
}

TEST(QuantizeBytesTest, RangesOfUnits) {
  for (int64_t cols : {8192 * 3 + 5, 1}) {
    const std::vector<float> values = sample(cols);
    for (DType dtype : kTypes) {
      const auto x = as_dtype(values, dtype);
      for (bool symmetric : {true, false}) {
        const QuantizePlan plan = plan_of({1, cols, 8, symmetric, 0, dtype});
        for_each_isa([&](Isa) {
          for (int64_t unit = 0; unit < plan.unit_count; ++unit) {
            QuantizeRange expected;
            const int64_t end = std::min(cols, (unit + 1) * plan.unit_cols);
            for (int64_t i = unit * plan.unit_cols; i < end; ++i) {
              const float value = value_at(x, dtype, i);
              expected.min = std::min(expected.min, value);
              expected.max = std::max(expected.max, value);
              expected.magnitude_bits =
                  std::max(expected.magnitude_bits, float_to_bits(value) & 0x7fffffffu);
            }
            QuantizeRange range;
            quantize_range_cpu(plan, x.data(), dtype, unit, unit + 1, &range);
            EXPECT_EQ(range.magnitude_bits, expected.magnitude_bits);
            if (symmetric) continue;  // what it is made of tells all
            EXPECT_EQ(range.min, expected.min);
            EXPECT_EQ(range.max, expected.max);
          }
        });
      }
    }
  }
}

}  // namespace
}  // namespace qvlmem
