// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "cpp_tests/kernels/sparse_case.h"
#include "kernels/sparse/sparse.h"

namespace qvlmem {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};
constexpr int64_t kSizes[] = {0, 1, 31, 72, 129, 4304, kSparseUnit, 3 * kSparseUnit + 17};

// What the contract asks for, by sorting.
std::vector<int64_t> reference_positions(const std::vector<uint8_t>& x, DType dtype, int64_t n,
                                         bool prune, double threshold) {
  const uint32_t mask = sparse_nonzero_rule(dtype, prune).key_mask;
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < n; ++i) {
    if ((bits_of(x, dtype, i) & mask) != 0) kept.push_back(i);
  }
  if (!prune) return kept;
  const int64_t zeros = n - static_cast<int64_t>(kept.size());
  const int64_t drop = static_cast<int64_t>(std::ceil(threshold * static_cast<double>(n))) - zeros;
  if (drop <= 0) return kept;
  std::stable_sort(kept.begin(), kept.end(), [&](int64_t a, int64_t b) {
    return std::fabs(value_at(x, dtype, a)) > std::fabs(value_at(x, dtype, b));
  });
  kept.resize(kept.size() - drop);
  std::sort(kept.begin(), kept.end());
  return kept;
}

// The rule for a threshold, as a caller finds it; `first` is the range that it begins with.
SparseRule select(const SparsePlan& plan, const void* x, double threshold, SparseKeyRange first) {
  SparseRule rule = sparse_nonzero_rule(plan.dtype, true);
  std::vector<int64_t> counts(plan.unit_count);
  sparse_count_keys_cpu(plan, x, 0, plan.unit_count, rule.key_mask, 0, 0, counts.data());
  const int64_t zeros = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const int64_t target = sparse_zero_target(threshold, plan.numel);
  if (zeros >= target) return rule;
  SparseKeyRange range = first;
  SparseCut cut;
  int steps = 0;
  for (;; ++steps) {
    SparseHistogram histogram;
    for (int64_t u = plan.unit_count; u-- > 0;) {
      sparse_histogram_cpu(plan, x, u, u + 1, range, &histogram);
    }
    if (sparse_narrow(histogram, target, &range, &cut)) break;
  }
  EXPECT_LE(steps, 4);
  rule.cut = cut.key;
  int64_t ties = cut.below + cut.equal - target;
  sparse_count_keys_cpu(plan, x, 0, plan.unit_count, rule.key_mask, cut.key, cut.key,
                        counts.data());
  for (int64_t u = 0; ties > 0; ++u) {
    if (ties <= counts[u]) rule.boundary = sparse_boundary_cpu(plan, x, u, cut.key, ties);
    ties -= counts[u];
  }
  return rule;
}

struct Coo {
  std::vector<int32_t> indices;
  std::vector<uint8_t> values;
};

// Unit by unit, in reverse.
Coo gather(const SparsePlan& plan, const SparseRule& rule, const void* x) {
  const auto offsets = offsets_of(plan, rule, x);
  Coo coo;
  coo.indices.assign(offsets.back() + 1, -1);
  coo.values.assign(offsets.back() * plan.element_bytes + 1, 0xee);
  auto scratch = std::make_unique<SparseScratch>();
  for (int64_t u = plan.unit_count; u-- > 0;) {
    sparse_gather_cpu(plan, rule, x, u, false, scratch.get());
    EXPECT_EQ(scratch->count, offsets[u + 1] - offsets[u]);
    sparse_place_cpu(plan, {scratch.get(), u, offsets[u]}, coo.indices.data(), coo.values.data());
  }
  EXPECT_EQ(coo.indices.back(), -1);
  EXPECT_EQ(coo.values.back(), 0xee);
  coo.indices.pop_back();
  coo.values.pop_back();
  return coo;
}

// Likewise, each unit placed while the next one is gathered.
Coo gather_and_place(const SparsePlan& plan, const SparseRule& rule, const void* x) {
  const auto offsets = offsets_of(plan, rule, x);
  Coo coo;
  coo.indices.assign(offsets.back() + 1, -1);
  coo.values.assign(offsets.back() * plan.element_bytes + 1, 0xee);
  const auto scratches = std::make_unique<SparseScratch[]>(2);
  SparsePlacing placing;
  for (int64_t u = plan.unit_count; u-- > 0;) {
    SparseScratch* const scratch = &scratches[u % 2];
    sparse_gather_and_place_cpu(plan, rule, x, u, placing, coo.indices.data(), coo.values.data(),
                                scratch);
    placing = {scratch, u, offsets[u]};
  }
  sparse_place_cpu(plan, placing, coo.indices.data(), coo.values.data());
  EXPECT_EQ(coo.indices.back(), -1);
  EXPECT_EQ(coo.values.back(), 0xee);
  coo.indices.pop_back();
  coo.values.pop_back();
  return coo;
}

template <class Check>
void for_each_case(Check check) {
  for (DType dtype : kDTypes) {
    for (int64_t n : kSizes) {
      for (double density : {0.0, 0.02, 0.3, 1.0}) {
        SCOPED_TRACE("dtype " + std::to_string(int(dtype)) + " n " + std::to_string(n) +
                     " density " + std::to_string(density));
        SparsePlan plan;
        ASSERT_EQ(make_sparse_plan(n, dtype, &plan), Status::kOk);
        check(plan, sparse_sample(n, density, dtype));
      }
    }
  }
}

TEST(SparseKernelTest, StoresWhatTheContractSays) {
  for_each_case([&](const SparsePlan& plan, const std::vector<uint8_t>& x) {
    for (double threshold : {-1.0, 0.0, 0.01, 0.5, 0.77, 1.0}) {
      const bool prune = threshold >= 0;
      const auto expected = reference_positions(x, plan.dtype, plan.numel, prune, threshold);
      for (SparseKeyRange first : {SparseKeyRange{}, SparseKeyRange{0x3800, 0}}) {
        for_each_isa([&](Isa) {
          const SparseRule rule = prune ? select(plan, x.data(), threshold, first)
                                        : sparse_nonzero_rule(plan.dtype, false);
          const Coo coo = gather(plan, rule, x.data());
          ASSERT_TRUE(
              std::equal(coo.indices.begin(), coo.indices.end(), expected.begin(), expected.end()));
          for (size_t k = 0; k < expected.size(); ++k) {
            ASSERT_EQ(bits_of(coo.values, plan.dtype, k), bits_of(x, plan.dtype, expected[k]));
          }
          const Coo interleaved = gather_and_place(plan, rule, x.data());
          ASSERT_EQ(interleaved.indices, coo.indices);
          ASSERT_EQ(interleaved.values, coo.values);
        });
      }
    }
  });
}

TEST(SparseKernelTest, ASampleSavesPasses) {
  for (DType dtype : kDTypes) {
    for (int64_t n : {1, 100, 5000, 300000}) {
      SparsePlan plan;
      ASSERT_EQ(make_sparse_plan(n, dtype, &plan), Status::kOk);
      const auto x = sparse_sample(n, 0.4, dtype);
      std::vector<uint32_t> keys(kSparseSample);
      std::vector<uint32_t> sorted(n);
      for (int64_t i = 0; i < n; ++i)
        sorted[i] = bits_of(x, dtype, i) & sparse_magnitude_mask(dtype);
      std::sort(sorted.begin(), sorted.end());
      for (int64_t rank : {int64_t{1}, n / 4 + 1, n * 4 / 5 + 1, n}) {
        SparseKeyRange range;
        const bool zero = sparse_sample_cpu(plan, x.data(), rank, keys.data(), &range);
        EXPECT_EQ(zero, sorted[rank - 1] == 0);
        int steps = 0;
        for (SparseCut cut; steps < 4; ++steps) {
          SparseHistogram histogram;
          sparse_histogram_cpu(plan, x.data(), 0, plan.unit_count, range, &histogram);
          if (!sparse_narrow(histogram, rank, &range, &cut)) continue;
          EXPECT_EQ(cut.key, sorted[rank - 1]);
          break;
        }
        EXPECT_LT(steps, !zero && rank < n ? 2 : 4) << "n " << n << " rank " << rank;
      }
    }
  }
}

TEST(SparseKernelTest, DensifyPutsZerosElsewhere) {
  for_each_case([&](const SparsePlan& plan, const std::vector<uint8_t>& x) {
    const SparseRule rule = sparse_nonzero_rule(plan.dtype, false);
    std::vector<uint8_t> expected = x;  // -0.0 is stored: bit by bit
    for_each_isa([&](Isa) {
      const Coo coo = gather(plan, rule, x.data());
      const std::vector<int64_t> wide(coo.indices.begin(), coo.indices.end());
      const int64_t nnz = static_cast<int64_t>(wide.size());
      std::vector<uint8_t> y(x.size(), 0xcc), z = y;
      y.back() = z.back() = x.back();
      for (int64_t u = plan.unit_count; u-- > 0;) {
        ASSERT_EQ(sparse_densify_cpu(plan, coo.indices.data(), coo.values.data(), nnz, u, u + 1,
                                     y.data()),
                  Status::kOk);
      }
      ASSERT_EQ(sparse_densify_cpu(plan, wide.data(), coo.values.data(), nnz, 0, plan.unit_count,
                                   z.data()),
                Status::kOk);
      EXPECT_EQ(y, expected);
      EXPECT_EQ(z, expected);
    });
  });
}

TEST(SparseKernelTest, CompactFormsRoundTripAlikeOnEveryIsa) {
  for_each_case([&](SparsePlan plan, const std::vector<uint8_t>& x) {
    const SparseRule rule = select(plan, x.data(), 0.6, SparseKeyRange{});
    for (int form = 0; form < kSparseFormCount; ++form) {
      std::vector<uint8_t> first_index, first_values;
      for_each_isa([&](Isa isa) {
        const auto offsets = offsets_of(plan, rule, x.data());
        ASSERT_EQ(set_sparse_layout(offsets.back(), SparseForm(form), &plan), Status::kOk);
        std::vector<uint8_t> index(plan.index_bytes + 1, 0xee), values(plan.values_bytes + 1, 0xee);
        auto scratch = std::make_unique<SparseScratch>();
        for (int64_t u = plan.unit_count; u-- > 0;) {
          ASSERT_EQ(sparse_encode_cpu(plan, rule, x.data(), u, u + 1, offsets.data(), index.data(),
                                      values.data(), scratch.get()),
                    Status::kOk);
        }
        if (isa == Isa::kPortable) first_index = index, first_values = values;
        EXPECT_EQ(index, first_index);
        EXPECT_EQ(values, first_values);
        EXPECT_EQ(index.back(), 0xee);
        EXPECT_EQ(values.back(), 0xee);

        std::vector<int64_t> read(plan.unit_count + 1);
        ASSERT_EQ(sparse_offsets(plan, index.data(), read.data()), Status::kOk);
        EXPECT_EQ(read, offsets);
        std::vector<uint8_t> y(x.size(), 0xcc);
        std::vector<int64_t> positions(plan.nnz);
        for (int64_t u = plan.unit_count; u-- > 0;) {
          ASSERT_EQ(
              sparse_decode_cpu(plan, index.data(), read.data(), values.data(), u, u + 1, y.data()),
              Status::kOk);
          ASSERT_EQ(
              sparse_positions_cpu(plan, index.data(), read.data(), u, u + 1, positions.data()),
              Status::kOk);
        }
        size_t next = 0;
        for (int64_t i = 0; i < plan.numel; ++i) {
          const uint32_t bits = bits_of(x, plan.dtype, i);
          const bool kept = sparse_keeps(bits, i, rule);
          ASSERT_EQ(bits_of(y, plan.dtype, i), kept ? bits : 0) << i;
          if (kept) {
            ASSERT_EQ(positions[next++], i);
          }
        }
      });
    }
  });
}

// Large enough that outputs bypass the cache, at any alignment.
TEST(SparseKernelTest, StreamsLargeTensorsAtAnyAddress) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    SparsePlan plan;
    const int64_t n = 700001;
    ASSERT_EQ(make_sparse_plan(n, dtype, &plan), Status::kOk);
    ASSERT_TRUE(sparse_streams(plan));
    const auto x = sparse_sample(n, 0.3, dtype);
    const SparseRule rule = sparse_nonzero_rule(dtype, false);
    for_each_isa([&](Isa) {
      const Coo coo = gather(plan, rule, x.data());
      const Coo interleaved = gather_and_place(plan, rule, x.data());
      ASSERT_EQ(interleaved.indices, coo.indices);
      ASSERT_EQ(interleaved.values, coo.values);
      for (int64_t shift : {0, 3}) {
        std::vector<uint8_t> y(x.size() + 64, 0xcc);
        uint8_t* start = y.data() + shift * plan.element_bytes;
        ASSERT_EQ(sparse_densify_cpu(plan, coo.indices.data(), coo.values.data(),
                                     int64_t(coo.indices.size()), 0, plan.unit_count, start),
                  Status::kOk);
        EXPECT_EQ(std::memcmp(start, x.data(), n * plan.element_bytes), 0);
        EXPECT_EQ(start[n * plan.element_bytes], 0xcc);
      }
    });
  }
}

TEST(SparseKernelTest, FindsNonFiniteAndKeepsItWithoutPruning) {
  for (DType dtype : kDTypes) {
    for (int64_t at : {0, 5000, 16390}) {
      for (float bad : {float(NAN), float(INFINITY), -float(INFINITY)}) {
        std::vector<float> values(16400, 0.0f);
        values[3] = 65504.0f;
        const auto good_x = as_dtype(values, dtype);
        values[at] = bad;
        const auto x = as_dtype(values, dtype);
        SparsePlan plan;
        ASSERT_EQ(make_sparse_plan(16400, dtype, &plan), Status::kOk);
        const uint32_t infinity = sparse_infinity_key(dtype);
        const SparseRule rule = sparse_nonzero_rule(dtype, true);
        for_each_isa([&](Isa) {
          int64_t counts[2];
          sparse_count_keys_cpu(plan, x.data(), 0, 2, rule.key_mask, infinity, rule.key_mask,
                                counts);
          EXPECT_EQ(counts[0], at < kSparseUnit);
          EXPECT_EQ(counts[1], at >= kSparseUnit);
          auto scratch = std::make_unique<SparseScratch>();
          sparse_gather_cpu(plan, rule, x.data(), at / kSparseUnit, false, scratch.get());
          EXPECT_GE(scratch->largest_key, infinity);
          sparse_gather_cpu(plan, rule, good_x.data(), 0, true, scratch.get());
          EXPECT_LT(scratch->largest_key, infinity);
          const Coo coo = gather(plan, sparse_nonzero_rule(dtype, false), x.data());
          const auto place = std::find(coo.indices.begin(), coo.indices.end(), int32_t(at));
          ASSERT_NE(place, coo.indices.end());
          EXPECT_EQ(bits_of(coo.values, dtype, place - coo.indices.begin()), bits_of(x, dtype, at));
        });
      }
    }
  }
}

TEST(SparsePlanTest, ChoosesTheSmallestForm) {
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(1 << 20, DType::kFloat32, &plan), Status::kOk);
  EXPECT_EQ(sparse_smallest_form(plan, 1 << 19), SparseForm::kBitmask);
  EXPECT_EQ(sparse_smallest_form(plan, (1 << 20) / 20), SparseForm::kBlock8);
  EXPECT_EQ(sparse_smallest_form(plan, 1000), SparseForm::kUnit16);
  for (int64_t nnz : {0, 1000, 50000, 500000}) {
    const SparseForm best = sparse_smallest_form(plan, nnz);
    ASSERT_EQ(set_sparse_layout(nnz, best, &plan), Status::kOk);
    const int64_t bytes = plan.index_bytes;
    for (int form = 0; form < kSparseFormCount; ++form) {
      ASSERT_EQ(set_sparse_layout(nnz, SparseForm(form), &plan), Status::kOk);
      EXPECT_LE(bytes, plan.index_bytes);
    }
  }
}

TEST(SparsePlanTest, RefusesWhatItCannotDo) {
  SparsePlan plan;
  EXPECT_EQ(make_sparse_plan(-1, DType::kFloat32, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_sparse_plan(4, DType::kInt32, &plan), Status::kInvalidArgument);
  EXPECT_EQ(make_sparse_plan(INT64_MAX / 8, DType::kFloat32, &plan), Status::kOverflow);
  ASSERT_EQ(make_sparse_plan(4, DType::kFloat32, &plan), Status::kOk);
  EXPECT_EQ(set_sparse_layout(5, SparseForm::kBitmask, &plan), Status::kInvalidArgument);
  EXPECT_EQ(set_sparse_layout(-1, SparseForm::kBitmask, &plan), Status::kInvalidArgument);
  EXPECT_EQ(set_sparse_layout(1, SparseForm(3), &plan), Status::kInvalidArgument);
  EXPECT_EQ(sparse_zero_target(0.1, 10), 1);
  EXPECT_EQ(sparse_zero_target(0.5, 3), 2);
  EXPECT_EQ(sparse_zero_target(1.0, int64_t{1} << 60), int64_t{1} << 60);
  EXPECT_EQ(sparse_zero_target(0.0, 7), 0);
  EXPECT_FALSE(sparse_wide_indices(int64_t{1} << 31));
  EXPECT_TRUE(sparse_wide_indices((int64_t{1} << 31) + 1));
}

}  // namespace
}  // namespace qvlmem
