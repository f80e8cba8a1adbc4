// SPDX-License-Identifier: Apache-2.0
// Indices that are damaged or made to harm: an error, never a write out of bounds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/sparse_case.h"
#include "kernels/sparse/sparse.h"

namespace qvlmem {
namespace {

TEST(SparseHostileTest, RefusesHostileIndices) {
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(40000, DType::kFloat32, &plan), Status::kOk);
  std::vector<int32_t> good;
  for (int32_t i = 5; i < 40000; i += 7) good.push_back(i);
  const std::vector<float> values(good.size(), 1.0f);
  const int64_t nnz = static_cast<int64_t>(good.size());
  std::mt19937 random(9);
  for_each_isa([&](Isa) {
    std::vector<float> y(40000 + 1, 5.0f);
    const auto run = [&](const auto& indices) {
      Status worst = Status::kOk;
      for (int64_t u = 0; u < plan.unit_count; ++u) {
        const Status status =
            sparse_densify_cpu(plan, indices.data(), values.data(), nnz, u, u + 1, y.data());
        if (status != Status::kOk) worst = status;
      }
      EXPECT_EQ(y[40000], 5.0f);
      return worst;
    };
    ASSERT_EQ(run(good), Status::kOk);
    for (int trial = 0; trial < 400; ++trial) {
      auto bad = good;
      const size_t at = trial < 2 ? (trial == 0 ? 0 : bad.size() - 1) : random() % bad.size();
      const int32_t wrong[] = {-1,
                               INT32_MIN,
                               INT32_MAX,
                               40000,
                               at > 0 ? bad[at - 1] : -5,
                               at + 1 < bad.size() ? bad[at + 1] : 1 << 30};
      bad[at] = wrong[trial % 6];
      EXPECT_EQ(run(bad), Status::kCorrupt) << "entry " << at << " is " << bad[at];
      std::vector<int64_t> wide(bad.begin(), bad.end());
      if (trial % 6 == 0) wide[at] = good[at] + (int64_t{1} << 32);
      EXPECT_EQ(run(wide), Status::kCorrupt);
    }
    auto shuffled = good;
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    EXPECT_EQ(run(shuffled), Status::kCorrupt);
  });
}

// Whatever the index holds, decoders end with kOk or kCorrupt, and a changed index that is still
// accepted gives the same number of stored elements.
TEST(SparseHostileTest, RefusesHostileIndexBytes) {
  const int64_t n = kSparseUnit + 1003;
  const auto x = sparse_sample(n, 0.1, DType::kFloat16);
  std::mt19937 random(4);
  for (int form = 0; form < kSparseFormCount; ++form) {
    for_each_isa([&](Isa) {
      SparsePlan plan;
      ASSERT_EQ(make_sparse_plan(n, DType::kFloat16, &plan), Status::kOk);
      const SparseRule rule = sparse_nonzero_rule(DType::kFloat16, true);
      const auto offsets = offsets_of(plan, rule, x.data());
      ASSERT_EQ(set_sparse_layout(offsets.back(), SparseForm(form), &plan), Status::kOk);
      std::vector<uint8_t> index(plan.index_bytes), values(plan.values_bytes, 1);
      auto scratch = std::make_unique<SparseScratch>();
      ASSERT_EQ(sparse_encode_cpu(plan, rule, x.data(), 0, 2, offsets.data(), index.data(),
                                  values.data(), scratch.get()),
                Status::kOk);
      int refused = 0;
      for (int trial = 0; trial < 600; ++trial) {
        auto bad = index;
        for (int flips = 1 + trial % 3; flips > 0; --flips) {
          bad[trial < 40 ? random() % 4 : random() % bad.size()] ^= uint8_t(1u << (random() % 8));
        }
        std::vector<int64_t> read(plan.unit_count + 1), positions(plan.nnz);
        std::vector<uint16_t> y(n);
        if (sparse_offsets(plan, bad.data(), read.data()) != Status::kOk) {
          ++refused;
          continue;
        }
        const Status status =
            sparse_decode_cpu(plan, bad.data(), read.data(), values.data(), 0, 2, y.data());
        EXPECT_EQ(status,
                  sparse_positions_cpu(plan, bad.data(), read.data(), 0, 2, positions.data()));
        if (status == Status::kOk) {
          EXPECT_EQ(n - std::count(y.begin(), y.end(), 0), plan.nnz);
        } else {
          EXPECT_EQ(status, Status::kCorrupt);
          ++refused;
        }
      }
      EXPECT_GT(refused, 200);
    });
  }
}

// What adds up all the same: only one index says the same thing.
TEST(SparseHostileTest, RefusesASecondWayToSayTheSame) {
  const int64_t n = 3 * kSparseBlock + 5;
  std::vector<float> x(n, 0.0f);
  std::fill(x.begin(), x.begin() + kSparseBlock, 1.0f);
  x[n - 1] = 2.0f;
  const SparseRule rule = sparse_nonzero_rule(DType::kFloat32, true);
  auto scratch = std::make_unique<SparseScratch>();
  for_each_isa([&](Isa) {
    SparsePlan plan;
    ASSERT_EQ(make_sparse_plan(n, DType::kFloat32, &plan), Status::kOk);
    const auto offsets = offsets_of(plan, rule, x.data());
    std::vector<float> y(n);
    std::vector<uint8_t> index;
    const auto encode = [&](SparseForm form) {
      EXPECT_EQ(set_sparse_layout(offsets.back(), form, &plan), Status::kOk);
      index.resize(plan.index_bytes);
      std::vector<uint8_t> values(plan.values_bytes);
      EXPECT_EQ(sparse_encode_cpu(plan, rule, x.data(), 0, 1, offsets.data(), index.data(),
                                  values.data(), scratch.get()),
                Status::kOk);
    };
    const auto decode = [&] {
      const std::vector<uint8_t> values(plan.values_bytes, 1);
      return sparse_decode_cpu(plan, index.data(), offsets.data(), values.data(), 0, 1, y.data());
    };

    encode(SparseForm::kBlock8);
    ASSERT_EQ(decode(), Status::kOk);
    index[plan.block_counts_offset] = 5;  // of a block that is full
    EXPECT_EQ(decode(), Status::kCorrupt);
    encode(SparseForm::kBlock8);
    index[plan.full_bits_offset] |= 0x80;  // of no block
    EXPECT_EQ(decode(), Status::kCorrupt);

    encode(SparseForm::kBitmask);
    ASSERT_EQ(decode(), Status::kOk);
    index.back() = 0x20;  // the last element's bit, moved to one beyond
    EXPECT_EQ(decode(), Status::kCorrupt);

    encode(SparseForm::kUnit16);
    ASSERT_EQ(decode(), Status::kOk);
    const uint16_t beyond = static_cast<uint16_t>(n);
    std::memcpy(&index[plan.index_bytes - 2], &beyond, 2);
    EXPECT_EQ(decode(), Status::kCorrupt);
    const uint16_t many = 65535;  // more than a unit has elements
    std::memcpy(&index[0], &many, 2);
    std::vector<int64_t> read(2);
    plan.nnz = many;
    EXPECT_EQ(sparse_offsets(plan, index.data(), read.data()), Status::kCorrupt);
  });
}

TEST(SparseHostileTest, EncodeRefusesATensorThatChanged) {
  std::vector<float> x(100, 1.0f);
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(100, DType::kFloat32, &plan), Status::kOk);
  const SparseRule rule = sparse_nonzero_rule(DType::kFloat32, true);
  const auto offsets = offsets_of(plan, rule, x.data());
  ASSERT_EQ(set_sparse_layout(100, SparseForm::kUnit16, &plan), Status::kOk);
  x[50] = 0.0f;
  std::vector<uint8_t> index(plan.index_bytes), values(plan.values_bytes);
  auto scratch = std::make_unique<SparseScratch>();
  EXPECT_EQ(sparse_encode_cpu(plan, rule, x.data(), 0, 1, offsets.data(), index.data(),
                              values.data(), scratch.get()),
            Status::kInvalidArgument);
}

TEST(SparseHostileTest, EncodeRefusesNonFinite) {
  std::vector<float> x(100, 1.0f);
  x[77] = -INFINITY;
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(100, DType::kFloat32, &plan), Status::kOk);
  ASSERT_EQ(set_sparse_layout(100, SparseForm::kBitmask, &plan), Status::kOk);
  const std::vector<int64_t> offsets = {0, 100};
  std::vector<uint8_t> index(plan.index_bytes), values(plan.values_bytes);
  auto scratch = std::make_unique<SparseScratch>();
  for (bool prune : {true, false}) {
    EXPECT_EQ(sparse_encode_cpu(plan, sparse_nonzero_rule(DType::kFloat32, prune), x.data(), 0, 1,
                                offsets.data(), index.data(), values.data(), scratch.get()),
              prune ? Status::kNonFinite : Status::kOk);
  }
}

}  // namespace
}  // namespace qvlmem
