// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of sparse expand what the CPU's expand, and refuse what they refuse.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cpp_tests/kernels/sparse_driver_cuda.h"
#include "kernels/sparse/sparse_cuda.h"

namespace qvlmem {
namespace {

class SparseDecodeCudaTest : public CudaTest {};

template <class Index>
std::pair<std::vector<uint8_t>, int32_t> densify_on_device(const SparsePlan& plan,
                                                           const std::vector<Index>& indices,
                                                           const std::vector<uint8_t>& values,
                                                           size_t shift = 0) {
  DeviceBytes at(indices.data(), indices.size() * sizeof(Index));
  DeviceBytes from(values.data(), indices.size() * plan.element_bytes, shift * plan.element_bytes);
  DeviceBytes y(plan.numel * plan.element_bytes, shift * plan.element_bytes);
  DeviceBytes corrupt(4, 0, 0);
  EXPECT_EQ(
      sparse_densify_cuda(plan, at.as<Index>(), from.data(), static_cast<int64_t>(indices.size()),
                          y.data(), corrupt.as<int32_t>(), nullptr),
      cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {y.read<uint8_t>(), corrupt.read<int32_t>()[0]};
}

// Tiles of 4096 elements that hold bytes of 0xff alone.
int64_t refused_tiles(const SparsePlan& plan, const std::vector<uint8_t>& y) {
  const int64_t tile = 4096 * plan.element_bytes, size = plan.numel * plan.element_bytes;
  int64_t count = 0;
  for (int64_t begin = 0; begin < size; begin += tile) {
    count += std::all_of(y.begin() + begin, y.begin() + std::min(begin + tile, size),
                         [](uint8_t byte) { return byte == 0xff; });
  }
  return count;
}

TEST_F(SparseDecodeCudaTest, DensifyPutsZerosElsewhere) {
  for_each_sparse_case([&](const SparsePlan& plan, const std::vector<uint8_t>& x) {
    const SparseStored stored = store_on_cpu(plan, sparse_nonzero_rule(plan.dtype, false), x);
    const std::vector<int32_t> narrow(stored.indices.begin(), stored.indices.end());
    const std::vector<uint8_t> expected(x.begin(), x.begin() + plan.numel * plan.element_bytes);
    for (size_t shift : {0, 1}) {
      const auto [y, corrupt] = densify_on_device(plan, narrow, stored.values, shift);
      EXPECT_EQ(corrupt, 0);
      ASSERT_EQ(y, expected);
      const auto [z, wide_corrupt] = densify_on_device(plan, stored.indices, stored.values, shift);
      EXPECT_EQ(wide_corrupt, 0);
      ASSERT_EQ(z, expected);
    }
  });
}

TEST_F(SparseDecodeCudaTest, DensifyRefusesHostileIndices) {
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(40000, DType::kFloat32, &plan), Status::kOk);
  std::vector<int32_t> good;
  for (int32_t i = 5; i < 40000; i += 7) good.push_back(i);
  const std::vector<uint8_t> values(good.size() * 4, 1);
  std::mt19937 random(9);
  const auto refuses = [&](const auto& indices) {
    const auto [y, corrupt] = densify_on_device(plan, indices, values);
    EXPECT_EQ(refused_tiles(plan, y) > 0, corrupt == 1);
    return corrupt == 1;
  };
  ASSERT_FALSE(refuses(good));
  for (int trial = 0; trial < 120; ++trial) {
    auto bad = good;
    const size_t at = trial < 2 ? (trial == 0 ? 0 : bad.size() - 1) : random() % bad.size();
    const int32_t wrong[] = {-1,
                             INT32_MIN,
                             INT32_MAX,
                             40000,
                             at > 0 ? bad[at - 1] : -5,
                             at + 1 < bad.size() ? bad[at + 1] : 1 << 30};
    bad[at] = wrong[trial % 6];
    EXPECT_TRUE(refuses(bad)) << "entry " << at << " is " << bad[at];
    std::vector<int64_t> wide(bad.begin(), bad.end());
    if (trial % 6 == 0) wide[at] = good[at] + (int64_t{1} << 32);
    EXPECT_TRUE(refuses(wide)) << "entry " << at << " is " << wide[at];
  }
  auto shuffled = good;
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  EXPECT_TRUE(refuses(shuffled));
  std::reverse(good.begin(), good.end());
  EXPECT_TRUE(refuses(good));
  EXPECT_TRUE(refuses(std::vector<int32_t>(good.size(), 5000)));
}

std::pair<std::vector<uint8_t>, int32_t> decode_on_device(const SparsePlan& plan,
                                                          const SparseEncoded& e,
                                                          size_t shift = 0) {
  DeviceBytes index(e.index.data(), e.index.size(), 2 * shift);
  DeviceBytes values(e.values.data(), e.values.size(), shift * plan.element_bytes);
  DeviceBytes y(plan.numel * plan.element_bytes, shift * plan.element_bytes);
  DeviceBytes corrupt(4, 0, 0), workspace(sparse_decode_workspace_bytes(plan));
  EXPECT_EQ(sparse_decode_cuda(plan, index.data(), values.data(), y.data(), corrupt.as<int32_t>(),
                               workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {y.read<uint8_t>(), corrupt.read<int32_t>()[0]};
}

std::pair<std::vector<uint8_t>, Status> decode_on_cpu(const SparsePlan& plan,
                                                      const SparseEncoded& e) {
  std::vector<uint8_t> y(plan.numel * plan.element_bytes);
  std::vector<int64_t> offsets(plan.unit_count + 1);
  Status status = sparse_offsets(plan, e.index.data(), offsets.data());
  if (status == Status::kOk) {
    status = sparse_decode_cpu(plan, e.index.data(), offsets.data(), e.values.data(), 0,
                               plan.unit_count, y.data());
  }
  return {y, status};
}

std::pair<std::vector<int64_t>, int32_t> positions_on_device(const SparsePlan& plan,
                                                             const SparseEncoded& e,
                                                             size_t shift = 0) {
  DeviceBytes index(e.index.data(), e.index.size(), 2 * shift), positions(plan.nnz * 8);
  DeviceBytes corrupt(4, 0, 0), workspace(sparse_decode_workspace_bytes(plan));
  EXPECT_EQ(sparse_positions_cuda(plan, index.data(), positions.as<int64_t>(),
                                  corrupt.as<int32_t>(), workspace.data(), nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {positions.read<int64_t>(), corrupt.read<int32_t>()[0]};
}

// REQUIRES: a good index.
std::vector<int64_t> positions_on_cpu(const SparsePlan& plan, const SparseEncoded& e) {
  std::vector<int64_t> positions(plan.nnz), offsets(plan.unit_count + 1);
  EXPECT_EQ(sparse_offsets(plan, e.index.data(), offsets.data()), Status::kOk);
  EXPECT_EQ(sparse_positions_cpu(plan, e.index.data(), offsets.data(), 0, plan.unit_count,
                                 positions.data()),
            Status::kOk);
  return positions;
}

void expect_same_decoded(SparsePlan plan, const SparseRule& rule, const std::vector<uint8_t>& x) {
  for (int form = 0; form < kSparseFormCount; ++form) {
    SCOPED_TRACE("form " + std::to_string(form));
    const SparseEncoded encoded = encode_on_cpu(SparseForm(form), rule, x, &plan);
    for (size_t shift : {0, 1}) {
      const auto [y, corrupt] = decode_on_device(plan, encoded, shift);
      EXPECT_EQ(corrupt, 0);
      ASSERT_EQ(y, decode_on_cpu(plan, encoded).first);
      const auto [positions, refused] = positions_on_device(plan, encoded, shift);
      EXPECT_EQ(refused, 0);
      ASSERT_EQ(positions, positions_on_cpu(plan, encoded));
    }
  }
}

TEST_F(SparseDecodeCudaTest, DecodesTheCompactForms) {
  for_each_sparse_case([&](const SparsePlan& plan, const std::vector<uint8_t>& x) {
    const int64_t target = sparse_zero_target(0.6, plan.numel);
    expect_same_decoded(plan, rule_on_cpu(plan, x.data(), true, target), x);
  });
}

TEST_F(SparseDecodeCudaTest, DecodesFullAndEmptyBlocks) {
  const int64_t n = 2 * kSparseUnit + 3 * kSparseBlock + 9;
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(n, DType::kBFloat16, &plan), Status::kOk);
  expect_same_decoded(plan, sparse_nonzero_rule(DType::kBFloat16, true), blocks_sample(n));
}

// More units than one round of the scan takes.
TEST_F(SparseDecodeCudaTest, DecodesManyUnits) {
  const int64_t n = 1026 * kSparseUnit + 5;
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(n, DType::kFloat16, &plan), Status::kOk);
  std::vector<float> values(n);
  for (int64_t i = 3; i < n; i += 5003) values[i] = static_cast<float>(i % 2000);
  const SparseRule rule = sparse_nonzero_rule(DType::kFloat16, true);
  const SparseEncoded encoded =
      encode_on_cpu(SparseForm::kUnit16, rule, as_dtype(values, DType::kFloat16), &plan);
  const auto [y, corrupt] = decode_on_device(plan, encoded);
  EXPECT_EQ(corrupt, 0);
  EXPECT_EQ(y, decode_on_cpu(plan, encoded).first);
}

// Whatever the index holds: the simulator, or a sanitizer, ends the test where a kernel reads or
// writes out of bounds.
TEST_F(SparseDecodeCudaTest, RefusesTheIndexBytesThatTheCpuRefuses) {
  const int64_t n = kSparseUnit + 1003;
  const auto x = sparse_sample(n, 0.1, DType::kFloat16);
  std::mt19937 random(4);
  for (int form = 0; form < kSparseFormCount; ++form) {
    SparsePlan plan;
    ASSERT_EQ(make_sparse_plan(n, DType::kFloat16, &plan), Status::kOk);
    const SparseEncoded good =
        encode_on_cpu(SparseForm(form), sparse_nonzero_rule(DType::kFloat16, true), x, &plan);
    int refused = 0;
    for (int trial = 0; trial < 300; ++trial) {
      SCOPED_TRACE("form " + std::to_string(form) + " trial " + std::to_string(trial));
      SparseEncoded bad = good;
      for (int flips = 1 + trial % 3; flips > 0; --flips) {
        const size_t at = trial < 40 ? random() % 4 : random() % bad.index.size();
        bad.index[at] ^= uint8_t(1u << (random() % 8));
      }
      if (trial >= 290) std::generate(bad.index.begin(), bad.index.end(), std::ref(random));
      const auto [expected, status] = decode_on_cpu(plan, bad);
      const auto [y, corrupt] = decode_on_device(plan, bad);
      ASSERT_EQ(corrupt == 0, status == Status::kOk);
      ASSERT_EQ(positions_on_device(plan, bad).second, corrupt);
      refused += corrupt;
      if (corrupt == 0) {
        ASSERT_EQ(y, expected);
        continue;
      }
      const bool counts_add_up = [&] {
        std::vector<int64_t> offsets(plan.unit_count + 1);
        return sparse_offsets(plan, bad.index.data(), offsets.data()) == Status::kOk;
      }();
      const int64_t tiles = refused_tiles(plan, y), all = (plan.numel + 4095) / 4096;
      ASSERT_GE(tiles, counts_add_up ? 1 : all);
    }
    EXPECT_GT(refused, 100);
    EXPECT_LT(refused, 300);
  }
}

// What adds up all the same: only one index says the same thing.
TEST_F(SparseDecodeCudaTest, RefusesASecondWayToSayTheSame) {
  const int64_t n = 3 * kSparseBlock + 5;
  std::vector<float> values(n, 0.0f);
  std::fill_n(values.begin(), kSparseBlock, 1.0f);
  values[n - 1] = 2.0f;
  const auto x = as_dtype(values, DType::kFloat32);
  const SparseRule rule = sparse_nonzero_rule(DType::kFloat32, true);
  SparsePlan plan;
  ASSERT_EQ(make_sparse_plan(n, DType::kFloat32, &plan), Status::kOk);
  const auto refuses = [&](SparseForm form, auto change) {
    SparseEncoded e = encode_on_cpu(form, rule, x, &plan);
    EXPECT_EQ(decode_on_device(plan, e).second, 0);
    change(e.index);
    EXPECT_EQ(decode_on_cpu(plan, e).second, Status::kCorrupt);
    EXPECT_EQ(positions_on_device(plan, e).second, 1);
    return decode_on_device(plan, e).second == 1;
  };
  using Bytes = std::vector<uint8_t>;
  // The count of a block that is full; the bit of no block; the last element's bit, moved to one
  // beyond; a position beyond.
  EXPECT_TRUE(refuses(SparseForm::kBlock8, [&](Bytes& b) { b[plan.block_counts_offset] = 5; }));
  EXPECT_TRUE(refuses(SparseForm::kBlock8, [&](Bytes& b) { b[plan.full_bits_offset] |= 0x80; }));
  EXPECT_TRUE(refuses(SparseForm::kBitmask, [&](Bytes& b) { b.back() = 0x20; }));
  EXPECT_TRUE(refuses(SparseForm::kUnit16, [&](Bytes& b) {
    const uint16_t beyond = static_cast<uint16_t>(n);
    std::memcpy(&b[plan.index_bytes - 2], &beyond, 2);
  }));
}

TEST_F(SparseDecodeCudaTest, SplitsPositionsByDimensions) {
  using Shape = std::vector<int64_t>;
  for (const Shape& shape : {Shape{77}, Shape{5, 9, 31}, Shape{1, 7, 1, 3}, Shape{1 << 20, 1 << 21},
                             Shape{3, int64_t{1} << 40}, Shape{2, 2, 2, 2, 2, 2, 2, 2}}) {
    int64_t numel = 1;
    for (int64_t size : shape) numel *= size;
    const int64_t dims = static_cast<int64_t>(shape.size()), nnz = std::min<int64_t>(numel, 300);
    std::vector<int64_t> expected(dims * nnz), rows(dims * nnz, -1);
    for (int64_t k = 0; k < nnz; ++k) {
      int64_t rest = numel - 1 - k * (numel / nnz);
      rows[(dims - 1) * nnz + k] = rest;
      for (int64_t d = dims; d-- > 0; rest /= shape[d]) expected[d * nnz + k] = rest % shape[d];
    }
    DeviceBytes on_device(rows.data(), rows.size() * 8);
    ASSERT_EQ(
        sparse_split_positions_cuda(shape.data(), dims, nnz, on_device.as<int64_t>(), nullptr),
        cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_EQ(on_device.read<int64_t>(), expected);
  }
}

}  // namespace
}  // namespace qvlmem
