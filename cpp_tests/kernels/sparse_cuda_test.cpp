// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of sparse store what the CPU's store, byte by byte, and refuse what they refuse.
#include "kernels/sparse/sparse_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cpp_tests/kernels/sparse_driver_cuda.h"

namespace qvlmem {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

class SparseCudaTest : public CudaTest {};

void expect_same(const SparsePlan& plan, const std::vector<uint8_t>& x, double threshold,
                 size_t shift = 0) {
  const bool prune = threshold >= 0;
  const int64_t target = prune ? sparse_zero_target(threshold, plan.numel) : 0;
  const SparseRule rule = rule_on_cpu(plan, x.data(), prune, target);
  const SparseStored expected = store_on_cpu(plan, rule, x);
  SparseOnDevice device(plan, x, prune, target, shift);
  ASSERT_EQ(device.found().nnz, static_cast<int64_t>(expected.indices.size()));
  EXPECT_EQ(device.found().non_finite, 0);
  const SparseStored got = device.store();
  ASSERT_EQ(got.indices, expected.indices);
  ASSERT_EQ(got.values, expected.values);
}

TEST_F(SparseCudaTest, StoresWhatTheCpuStores) {
  for_each_sparse_case([&](const SparsePlan& plan, const std::vector<uint8_t>& x) {
    for (double threshold : {-1.0, 0.0, 0.01, 0.5, 0.77, 1.0}) {
      SCOPED_TRACE("threshold " + std::to_string(threshold));
      for (size_t shift : {0, 1}) expect_same(plan, x, threshold, shift);
    }
  });
}

// What a sample of one place in 37 cannot foresee: the search must go below its range, above it,
// and take all its passes.
TEST_F(SparseCudaTest, FindsTheCutWhereTheSampleMisleads) {
  const int64_t n = 300000;
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(n, DType::kFloat32, &plan), Status::kOk);
  const SparseSampling sampling = sparse_sampling(n, n / 2);
  ASSERT_LT(sampling.runs, sampling.groups);
  std::vector<bool> sampled(n);
  for (int64_t run = 0; run < sampling.runs; ++run) {
    const int64_t begin = sparse_sample_begin(sampling, run);
    std::fill_n(sampled.begin() + begin, kSparseSampleRun, true);
  }
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (auto [seen, unseen] :
       {std::pair<float, float>{1e10f, 1e-10f}, {1e-10f, 1e10f}, {0, 1}, {1, 0}}) {
    std::vector<float> values(n);
    for (int64_t i = 0; i < n; ++i) values[i] = normal(random) * (sampled[i] ? seen : unseen);
    const auto x = as_dtype(values, DType::kFloat32);
    for (double threshold : {0.001, 0.3, 0.5, 0.9, 0.999}) {
      SCOPED_TRACE("seen " + std::to_string(seen) + " threshold " + std::to_string(threshold));
      expect_same(plan, x, threshold);
    }
  }
}

// More tiles than the search has blocks, and than one round of the scan takes.
TEST_F(SparseCudaTest, StoresManyTiles) {
  const int64_t n = 1030 * 4096 + 77;
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(n, DType::kBFloat16, &plan), Status::kOk);
  expect_same(plan, sparse_sample(n, 0.4, DType::kBFloat16), 0.9);
}

TEST_F(SparseCudaTest, KeepsTheEarlierOfEqualMagnitudes) {
  const int64_t n = 40000;
  for (DType dtype : kDTypes) {
    SparsePlan plan;
    ASSERT_EQ(make_sparse_plan(n, dtype, &plan), Status::kOk);
    std::vector<float> values(n);
    for (int64_t i = 0; i < n; ++i) values[i] = i % 2 == 0 ? 2.0f : -2.0f;
    for (int64_t at : {4095, 4096, 39999}) values[at] = 3.0f;
    const auto x = as_dtype(values, dtype);
    for (double kept : {1.0, 3.0, 4.0, 4096.0, 4097.0, 16390.0, 39999.0}) {
      expect_same(plan, x, 1 - kept / static_cast<double>(n));
    }
  }
}

void expect_same_forms(SparsePlan plan, const SparseRule& rule, const std::vector<uint8_t>& x,
                       SparseOnDevice* device) {
  for (int form = 0; form < kSparseFormCount; ++form) {
    SCOPED_TRACE("form " + std::to_string(form));
    const SparseEncoded expected = encode_on_cpu(SparseForm(form), rule, x, &plan);
    ASSERT_EQ(device->found().nnz, plan.nnz);
    const auto [index, values] = device->encode(plan);
    ASSERT_EQ(index, expected.index);
    ASSERT_EQ(values, expected.values);
  }
}

TEST_F(SparseCudaTest, EncodesTheCompactFormsOfTheCpu) {
  for_each_sparse_case([&](const SparsePlan& plan, const std::vector<uint8_t>& x) {
    const int64_t target = sparse_zero_target(0.6, plan.numel);
    SparseOnDevice device(plan, x, true, target);
    expect_same_forms(plan, rule_on_cpu(plan, x.data(), true, target), x, &device);
  });
}

TEST_F(SparseCudaTest, EncodesFullAndEmptyBlocks) {
  const int64_t n = 2 * kSparseUnit + 3 * kSparseBlock + 9;
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(n, DType::kBFloat16, &plan), Status::kOk);
  const auto x = blocks_sample(n);
  SparseOnDevice device(plan, x, true, 0);
  expect_same_forms(plan, sparse_nonzero_rule(DType::kBFloat16, true), x, &device);
}

TEST_F(SparseCudaTest, TellsOfWhatIsNotFinite) {
  for (DType dtype : kDTypes) {
    for (int64_t at : {0, 5000, 16390}) {
      for (float bad : {float(NAN), -float(NAN), float(INFINITY), -float(INFINITY)}) {
        std::vector<float> values(16400, 0.0f);
        values[3] = dtype == DType::kFloat16 ? 65504.0f : 3e38f;
        values[at] = bad;
        const auto x = as_dtype(values, dtype);
        SparsePlan plan;
        ASSERT_EQ(make_sparse_plan(16400, dtype, &plan), Status::kOk);
        for (int64_t target : {0, 8200, 16399}) {
          EXPECT_EQ(SparseOnDevice(plan, x, true, target).found().non_finite, 1);
        }
        expect_same(plan, x, -1.0);  // which stores it like any other value
      }
    }
  }
}

// Without pruning every pattern is a value like any other, also the one that is above all others.
TEST_F(SparseCudaTest, StoresThePatternOfAllBits) {
  for (DType dtype : kDTypes) {
    SparsePlan plan;
    ASSERT_EQ(make_sparse_plan(16400, dtype, &plan), Status::kOk);
    std::vector<uint8_t> x(plan.numel * plan.element_bytes);
    std::fill_n(x.begin() + 5000 * plan.element_bytes, plan.element_bytes, uint8_t{0xff});
    expect_same(plan, x, -1.0);
  }
}

// A tensor that another stream writes meanwhile: the guards around the outputs say whether what was
// written stayed inside.
TEST_F(SparseCudaTest, WritesInsideWhereXChanges) {
  SparsePlan plan;
  const int64_t n = 20000;
  ASSERT_EQ(make_sparse_plan(n, DType::kFloat32, &plan), Status::kOk);
  SparseOnDevice device(plan, sparse_sample(n, 0.3, DType::kFloat32), true, 0);
  const int64_t nnz = device.found().nnz;
  for (double density : {0.0, 0.1, 1.0}) {
    device.overwrite(sparse_sample(n, density, DType::kFloat32));
    EXPECT_EQ(static_cast<int64_t>(device.store().indices.size()), nnz);
    for (int form = 0; form < kSparseFormCount; ++form) {
      ASSERT_EQ(set_sparse_layout(nnz, SparseForm(form), &plan), Status::kOk);
      device.encode(plan);
    }
  }
}

}  // namespace
}  // namespace qvlmem
