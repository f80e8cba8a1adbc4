// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of bounded's packed form choose the steps of the CPU's and give their bytes, and
// decode what those decode.
#include "kernels/bounded/bounded_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "cpp_tests/kernels/bounded_driver.h"
#include "cpp_tests/kernels/bounded_values.h"
#include "cpp_tests/kernels/cuda_fixture.h"
#include "cpp_tests/kernels/typed_bytes.h"

namespace qvlmem {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

class BoundedCudaTest : public CudaTest {
 protected:
  static BoundedPlan plan_of(int64_t rows, int64_t cols) {
    BoundedPlan plan;
    EXPECT_EQ(make_bounded_plan(rows, cols, BoundedForm::kPacked, &plan), Status::kOk);
    return plan;
  }
};

struct OnDevice {
  BoundedFound found;
  BoundedEncoded encoded;
  int calls = 0;
};

// changed: what another stream writes over x meanwhile. looks: in one call.
OnDevice encode_on_device(const BoundedPlan& plan, const void* x, DType dtype,
                          const BoundedTarget& target, size_t shift = 0,
                          const void* changed = nullptr, std::optional<int> looks = {}) {
  OnDevice e;
  DeviceBytes values(x, plan.rows * plan.cols * dtype_bytes(dtype), shift * dtype_bytes(dtype));
  DeviceBytes step(plan.rows * 4), bytes(plan.unit_count * 4), found(sizeof(BoundedFound));
  DeviceBytes workspace(bounded_encode_workspace_bytes(plan));
  do {
    EXPECT_EQ(
        bounded_find_cuda(plan, values.data(), dtype, target,
                          {e.calls == 0, looks.value_or(bounded_looks(plan))}, step.as<float>(),
                          bytes.as<int32_t>(), found.as<BoundedFound>(), workspace.data(), nullptr),
        cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    e.found = found.read<BoundedFound>()[0];
    ++e.calls;
  } while (e.found.open && e.calls < 100);
  if (testing::Test::HasFailure() || e.found.non_finite || e.found.missed) return e;
  if (changed != nullptr) values.write(changed);
  DeviceBytes packed(e.found.total_bytes, shift);
  EXPECT_EQ(bounded_encode_cuda(plan, values.data(), dtype, step.as<float>(), packed.as<uint8_t>(),
                                workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  e.encoded.step = step.read<float>();
  e.encoded.bytes = bytes.read<int32_t>();
  e.encoded.packed = packed.read<uint8_t>();
  return e;
}

// False where refused.
bool decode_on_device(const BoundedPlan& plan, const BoundedEncoded& e, DType dtype,
                      std::vector<uint8_t>* y, size_t shift = 0) {
  DeviceBytes packed(e.packed.data(), e.packed.size(), shift);
  DeviceBytes step(e.step.data(), e.step.size() * 4), bytes(e.bytes.data(), e.bytes.size() * 4);
  DeviceBytes out(plan.rows * plan.cols * dtype_bytes(dtype), shift * dtype_bytes(dtype));
  DeviceBytes workspace(bounded_decode_workspace_bytes(plan)), refused(4, 0, 0);
  EXPECT_EQ(bounded_decode_cuda(plan, packed.as<uint8_t>(), static_cast<int64_t>(e.packed.size()),
                                bytes.as<int32_t>(), step.as<float>(), out.data(), dtype,
                                refused.as<int32_t>(), workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  *y = out.read<uint8_t>();
  return refused.read<int32_t>()[0] == 0;
}

void expect_agreement(const BoundedPlan& plan, const std::vector<uint8_t>& x, DType dtype,
                      const BoundedTarget& target, size_t shift = 0) {
  BoundedEncoded expected;
  const Status status = bounded_encode(plan, x.data(), dtype, target, &expected);
  const OnDevice got = encode_on_device(plan, x.data(), dtype, target, shift);
  ASSERT_EQ(got.found.non_finite != 0, status == Status::kNonFinite);
  ASSERT_EQ(got.found.missed != 0, status == Status::kBoundMissed);
  if (status != Status::kOk) return;
  ASSERT_EQ(expected.step, got.encoded.step);
  ASSERT_EQ(expected.bytes, got.encoded.bytes);
  ASSERT_EQ(expected.packed, got.encoded.packed);
  bool long_steps = false;
  for (float s : expected.step) long_steps = long_steps || bounded_shorter(s) != s;
  ASSERT_EQ(got.found.long_steps != 0, long_steps);
  std::vector<uint8_t> y, expected_y;
  ASSERT_EQ(bounded_decode(plan, expected, dtype, &expected_y), Status::kOk);
  expected_y.pop_back();
  ASSERT_TRUE(decode_on_device(plan, expected, dtype, &y, shift));
  ASSERT_EQ(y, expected_y);
}

TEST_F(BoundedCudaTest, GivesTheStepsAndTheBytesOfTheCpu) {
  const std::pair<int64_t, int64_t> shapes[] = {
      {1, 1}, {3, 72}, {2, 4304}, {5, 31}, {67, 129}, {300, 1}, {1, 33000}, {2, 40001}, {3, 8192}};
  for (auto [rows, cols] : shapes)
    for (DType dtype : kDTypes)
      for (Values kind : kAllValues) {
        const auto x = sample(kind, rows * cols, dtype);
        const BoundedPlan plan = plan_of(rows, cols);
        for (double max_error : {1.0, 0.5, 0.01, 1e-7})
          for (BoundedNorm norm : {BoundedNorm::kFrobenius, BoundedNorm::kElement}) {
            // A simulated device takes its time.
            if (rows * cols > 20000 && max_error > 0.5) continue;
            SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols) + " dtype " +
                         std::to_string(int(dtype)) + " values " + std::to_string(int(kind)) +
                         " max_error " + std::to_string(max_error) + " norm " +
                         std::to_string(int(norm)));
            expect_agreement(plan, x, dtype, {norm, max_error, rows % 2 == 1});
            if (HasFailure()) return;
          }
      }
}

// The guards around the output say whether what was written stayed inside.
TEST_F(BoundedCudaTest, WritesInsideWhereXChanges) {
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{3, 4304}, {1, 40001}}) {
    const BoundedPlan plan = plan_of(rows, cols);
    std::vector<float> near(rows * cols), far(rows * cols);
    for (int64_t i = 0; i < rows * cols; ++i) {
      near[i] = static_cast<float>(i % 7);
      far[i] = 1e4f * static_cast<float>(i % 1009 - 500);
    }
    const BoundedTarget target{BoundedNorm::kFrobenius, 0.01};
    encode_on_device(plan, near.data(), DType::kFloat32, target, 0, far.data());
    encode_on_device(plan, far.data(), DType::kFloat32, target, 0, near.data());
  }
}

TEST_F(BoundedCudaTest, TakesAnyAlignment) {
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{7, 1024}, {9, 33}, {1, 40000}})
    for (DType dtype : kDTypes) {
      const auto x = sample(Values::kLaplace, rows * cols, dtype);
      for (size_t shift : {0, 1, 3}) {
        expect_agreement(plan_of(rows, cols), x, dtype, {BoundedNorm::kFrobenius, 0.02}, shift);
        if (HasFailure()) return;
      }
    }
}

// Rows of so many units that a sample of them is searched first, and more units than lanes.
TEST_F(BoundedCudaTest, SearchesVeryLongRowsOnASampleFirst) {
  for (int64_t units : {31, 32, 70, 300})
    for (Values kind : {Values::kGaussian, Values::kOutliers}) {
      const int64_t cols = units * 8192 - 3000;
      const auto x = sample(kind, cols, DType::kBFloat16);
      SCOPED_TRACE(units);
      expect_agreement(plan_of(1, cols), x, DType::kBFloat16, {BoundedNorm::kFrobenius, 0.01});
      if (HasFailure()) return;
    }
}

TEST_F(BoundedCudaTest, GoesOnWithASearchThatTakesMoreLooks) {
  const BoundedPlan plan = plan_of(2, 33000);
  int most = 0;
  for (Values kind : kAllValues)
    for (double max_error : {0.9, 0.3, 3e-7}) {
      const auto x = sample(kind, 2 * 33000, DType::kFloat32);
      const BoundedTarget target{BoundedNorm::kElement, max_error};
      BoundedEncoded expected;
      const Status status = bounded_encode(plan, x.data(), DType::kFloat32, target, &expected);
      const OnDevice whole = encode_on_device(plan, x.data(), DType::kFloat32, target);
      EXPECT_EQ(whole.calls, 1);
      const OnDevice parts =
          encode_on_device(plan, x.data(), DType::kFloat32, target, 0, nullptr, 2);
      most = std::max(most, parts.calls);
      for (const OnDevice* got : {&whole, &parts}) {
        ASSERT_EQ(got->found.missed != 0, status == Status::kBoundMissed);
        if (status == Status::kOk) {
          ASSERT_EQ(expected.step, got->encoded.step);
          ASSERT_EQ(expected.packed, got->encoded.packed);
        }
      }
    }
  EXPECT_GT(most, 2);
}

TEST_F(BoundedCudaTest, TellsWhatItCannotKeep) {
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{3, 100}, {3, 50000}}) {
    const BoundedPlan plan = plan_of(rows, cols);
    for (float bad : {float(NAN), float(INFINITY), -float(INFINITY)})
      for (DType dtype : kDTypes)
        for (int64_t at : {int64_t{0}, cols, rows * cols - 1}) {
          std::vector<float> x(rows * cols, 1.0f);
          x[at] = bad;
          EXPECT_EQ(encode_on_device(plan, as_dtype(x, dtype).data(), dtype,
                                     {BoundedNorm::kFrobenius, 0.01})
                        .found.non_finite,
                    1);
        }
    const auto x = sample(Values::kGaussian, rows * cols, DType::kFloat32);
    const OnDevice missed =
        encode_on_device(plan, x.data(), DType::kFloat32, {BoundedNorm::kFrobenius, 1e-12});
    EXPECT_EQ(missed.found.missed, 1);
    EXPECT_EQ(missed.found.non_finite, 0);
  }
}

TEST_F(BoundedCudaTest, TakesTensorsWithoutValues) {
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{0, 0}, {0, 5}, {1, 0}}) {
    const BoundedPlan plan = plan_of(rows, cols);
    const float nothing = 0;
    const OnDevice e =
        encode_on_device(plan, &nothing, DType::kFloat32, {BoundedNorm::kFrobenius, 0.01});
    EXPECT_EQ(e.found.total_bytes, 0);
    EXPECT_TRUE(e.encoded.packed.empty());
    BoundedEncoded encoded;
    encoded.step.assign(rows, 1.0f);
    std::vector<uint8_t> y;
    EXPECT_TRUE(decode_on_device(plan, encoded, DType::kFloat32, &y));
    encoded.packed.push_back(0);
    EXPECT_FALSE(decode_on_device(plan, encoded, DType::kFloat32, &y));
  }
}

// Blocks of every kind and width, and a short last one, in two units.
BoundedEncoded hostile_sample(const BoundedPlan& plan) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> x(plan.rows * plan.cols);
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / plan.cols;
    x[i] = row % 5 == 0 ? 0.0f : (row % 5 == 1 ? 50.0f + 0.01f * normal(random) : normal(random));
  }
  BoundedEncoded e;
  EXPECT_EQ(bounded_encode(plan, x.data(), DType::kFloat32, {BoundedNorm::kFrobenius, 0.003}, &e),
            Status::kOk);
  return e;
}

// Units that hold bytes of 0xff alone; the values of others are finite.
int refused_units(const BoundedPlan& plan, const std::vector<uint8_t>& y) {
  int refused = 0;
  for (int64_t u = 0; u < plan.unit_count; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    const auto begin = y.begin() + unit.begin * 2, end = y.begin() + unit.end * 2;
    const bool whole = std::all_of(begin, end, [](uint8_t byte) { return byte == 0xff; });
    refused += whole;
    for (int64_t i = unit.begin; !whole && i < unit.end; ++i) {
      EXPECT_TRUE(std::isfinite(value_at(y, DType::kBFloat16, i))) << "value " << i;
    }
  }
  return refused;
}

// Refused exactly where the CPU refuses, else with the same values.
void expect_same_answer(const BoundedPlan& plan, const BoundedEncoded& e, size_t shift) {
  std::vector<uint8_t> expected, got;
  const bool fine = bounded_decode(plan, e, DType::kBFloat16, &expected) == Status::kOk;
  ASSERT_EQ(decode_on_device(plan, e, DType::kBFloat16, &got, shift), fine);
  expected.pop_back();
  if (fine) {
    ASSERT_EQ(expected, got);
    return;
  }
  int64_t total = 0;
  for (int32_t bytes : e.bytes) total += bytes;
  const bool adds_up = total == static_cast<int64_t>(e.packed.size());
  ASSERT_GE(refused_units(plan, got), adds_up ? 1 : plan.unit_count);
}

TEST_F(BoundedCudaTest, AnswersDamageAsTheCpuDoes) {
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{90, 129}, {1, 33001}}) {
    const BoundedPlan plan = plan_of(rows, cols);
    const BoundedEncoded good = hostile_sample(plan);
    for (size_t at = 0; at < good.packed.size(); at += at < 270 ? 1 : 97)
      for (uint8_t flip : {0x01, 0x20, 0xc0, 0xff}) {
        SCOPED_TRACE("byte " + std::to_string(at) + " flip " + std::to_string(flip));
        BoundedEncoded bad = good;
        bad.packed[at] ^= flip;
        expect_same_answer(plan, bad, at % 4);
        if (HasFailure()) return;
      }
    for (int32_t off : {1, -1, 4, -4, 1 << 20, INT32_MIN, INT32_MAX})
      for (size_t unit = 0; unit < good.bytes.size(); ++unit) {
        SCOPED_TRACE("unit " + std::to_string(unit) + " off " + std::to_string(off));
        BoundedEncoded bad = good;
        bad.bytes[unit] = static_cast<int32_t>(uint32_t(bad.bytes[unit]) + uint32_t(off));
        expect_same_answer(plan, bad, 0);
        if (unit > 0) bad.bytes[0] = static_cast<int32_t>(uint32_t(bad.bytes[0]) - uint32_t(off));
        expect_same_answer(plan, bad, 0);
        if (HasFailure()) return;
      }
    for (float step : {0.0f, -1.0f, NAN, INFINITY, 1e-45f, kFloat32Max, -0.0f})
      for (int64_t row : {int64_t{0}, rows / 2, rows - 1}) {
        SCOPED_TRACE("step " + std::to_string(step) + " row " + std::to_string(row));
        BoundedEncoded bad = good;
        bad.step[row] = step;
        expect_same_answer(plan, bad, 0);
        if (HasFailure()) return;
      }
    for (size_t size = 0; size < good.packed.size(); size += size < 300 ? 7 : 1001) {
      BoundedEncoded bad = good;
      bad.packed.resize(size);
      expect_same_answer(plan, bad, 0);
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace qvlmem
