// SPDX-License-Identifier: Apache-2.0
// Whole tensors through the kernels of sparse on a device, and through the CPU's for comparison.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cpp_tests/kernels/cuda_fixture.h"
#include "cpp_tests/kernels/sparse_case.h"
#include "kernels/sparse/sparse_cuda.h"

namespace qvlmem {

struct SparseStored {
  std::vector<int64_t> indices;
  std::vector<uint8_t> values;
};

// A tensor on the device, and what sparse_find_cuda found in it.
class SparseOnDevice {
 public:
  SparseOnDevice(const SparsePlan& plan, const std::vector<uint8_t>& x, bool prune, int64_t target,
                 size_t shift = 0)
      : plan_(plan),
        x_(x.data(), plan.numel * plan.element_bytes, shift * plan.element_bytes),
        workspace_(sparse_workspace_bytes(plan)),
        found_(sizeof(SparseFound)) {
    EXPECT_EQ(sparse_find_cuda(plan_, x_.data(), prune, target, found_.as<SparseFound>(),
                               workspace_.data(), nullptr),
              cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }

  SparseFound found() { return found_.read<SparseFound>()[0]; }

  SparseStored store() {
    const int64_t nnz = found().nnz;
    DeviceBytes indices(nnz * 4), values(nnz * plan_.element_bytes);
    EXPECT_EQ(sparse_store_cuda(plan_, x_.data(), workspace_.data(), indices.data(), values.data(),
                                nullptr),
              cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const std::vector<int32_t> narrow = indices.read<int32_t>();
    return {{narrow.begin(), narrow.end()}, values.read<uint8_t>()};
  }

  // plan: with its layout. Index and values.
  std::pair<std::vector<uint8_t>, std::vector<uint8_t>> encode(const SparsePlan& plan) {
    DeviceBytes index(plan.index_bytes), values(plan.values_bytes);
    EXPECT_EQ(sparse_encode_cuda(plan, x_.data(), workspace_.data(), index.data(), values.data(),
                                 nullptr),
              cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return {index.read<uint8_t>(), values.read<uint8_t>()};
  }

  void overwrite(const std::vector<uint8_t>& x) {
    EXPECT_EQ(
        cudaMemcpy(x_.data(), x.data(), plan_.numel * plan_.element_bytes, cudaMemcpyHostToDevice),
        cudaSuccess);
  }

 private:
  SparsePlan plan_;
  DeviceBytes x_, workspace_, found_;
};

// The rule for a target, as the CPU finds it.
inline SparseRule rule_on_cpu(const SparsePlan& plan, const void* x, bool prune, int64_t target) {
  SparseRule rule = sparse_nonzero_rule(plan.dtype, prune);
  if (target == 0) return rule;
  SparseKeyRange range;
  SparseCut cut;
  for (bool found = false; !found;) {
    SparseHistogram histogram;
    sparse_histogram_cpu(plan, x, 0, plan.unit_count, range, &histogram);
    found = sparse_narrow(histogram, target, &range, &cut);
  }
  rule.cut = cut.key;
  int64_t staying = cut.key == 0 ? 0 : cut.below + cut.equal - target;
  for (int64_t u = 0; staying > 0; ++u) {
    int64_t ties;
    sparse_count_keys_cpu(plan, x, u, u + 1, rule.key_mask, cut.key, cut.key, &ties);
    if (staying <= ties) rule.boundary = sparse_boundary_cpu(plan, x, u, cut.key, staying);
    staying -= ties;
  }
  return rule;
}

inline SparseStored store_on_cpu(const SparsePlan& plan, const SparseRule& rule,
                                 const std::vector<uint8_t>& x) {
  SparseStored stored;
  for (int64_t i = 0; i < plan.numel; ++i) {
    if (!sparse_keeps(bits_of(x, plan.dtype, i), i, rule)) continue;
    const uint8_t* const bytes = &x[i * plan.element_bytes];
    stored.indices.push_back(i);
    stored.values.insert(stored.values.end(), bytes, bytes + plan.element_bytes);
  }
  return stored;
}

struct SparseEncoded {
  std::vector<uint8_t> index, values;
};

// plan: gets its layout.
inline SparseEncoded encode_on_cpu(SparseForm form, const SparseRule& rule,
                                   const std::vector<uint8_t>& x, SparsePlan* plan) {
  const auto offsets = offsets_of(*plan, rule, x.data());
  EXPECT_EQ(set_sparse_layout(offsets.back(), form, plan), Status::kOk);
  SparseEncoded e{std::vector<uint8_t>(plan->index_bytes),
                  std::vector<uint8_t>(plan->values_bytes)};
  const auto scratch = std::make_unique<SparseScratch>();
  EXPECT_EQ(sparse_encode_cpu(*plan, rule, x.data(), 0, plan->unit_count, offsets.data(),
                              e.index.data(), e.values.data(), scratch.get()),
            Status::kOk);
  return e;
}

// Blocks that are full or empty, whole tiles of them, and a tail. In bfloat16.
inline std::vector<uint8_t> blocks_sample(int64_t n) {
  std::vector<float> values(n, 1.0f);
  for (int64_t i = 0; i < n; ++i) {
    if ((i / kSparseBlock) % 3 == 1 || i / 4096 == 2) values[i] = 0.0f;
  }
  return as_dtype(values, DType::kBFloat16);
}

// Every dtype, with sizes on both sides of tiles and units, and few or many elements to store.
template <class Check>
void for_each_sparse_case(Check check) {
  const int64_t sizes[] = {0, 1, 31, 129, 4304, kSparseUnit, 3 * kSparseUnit + 17};
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (int64_t n : sizes) {
      for (double density : {0.0, 0.02, 0.3, 1.0}) {
        SCOPED_TRACE("dtype " + std::to_string(int(dtype)) + " n " + std::to_string(n) +
                     " density " + std::to_string(density));
        SparsePlan plan;
        ASSERT_EQ(make_sparse_plan(n, dtype, &plan), Status::kOk);
        check(plan, sparse_sample(n, density, dtype));
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

}  // namespace qvlmem
