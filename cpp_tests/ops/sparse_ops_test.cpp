// SPDX-License-Identifier: Apache-2.0
#include "ops/sparse_ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/codec/codec.h"

namespace qvlmem::ops {
namespace {

constexpr at::ScalarType kDTypes[] = {at::kFloat, at::kHalf, at::kBFloat16};

// `density` of the elements are not zero, a third of these alike.
at::Tensor sparse_values(at::IntArrayRef shape, double density, at::ScalarType dtype = at::kFloat) {
  at::Tensor x = at::randn(shape);
  x = at::where(at::rand(shape) < 0.3, at::full({}, -0.5), x);
  return at::where(at::rand(shape) < density, x, at::zeros({})).to(dtype);
}

// What pruning to `threshold` leaves, by a stable sort.
at::Tensor pruned(const at::Tensor& x, double threshold) {
  const int64_t n = x.numel();
  const int64_t kept = n - static_cast<int64_t>(std::ceil(threshold * static_cast<double>(n)));
  const at::Tensor flat = x.reshape(-1);
  const auto order = at::argsort(flat.abs().to(at::kFloat), true, 0, true);
  const at::Tensor stay = order.slice(0, 0, kept);
  return at::zeros_like(flat).index_put({stay}, flat.index({stay})).view(x.sizes());
}

template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

TEST(SparseOpsTest, PruningLeavesTheLargestAndOfEqualOnesTheFirst) {
  at::manual_seed(1);
  for (const at::ScalarType dtype : kDTypes) {
    for (const double density : {0.0, 0.1, 0.7, 1.0}) {
      const at::Tensor x = sparse_values({3, 111, 113}, density, dtype);
      for (const double threshold : {0.0, 0.3, 0.5, 0.95, 1.0}) {
        const auto [indices, values] = sparsify_cpu(x, threshold, true);
        const at::Tensor y = densify_cpu(indices, values, x.sizes());
        const bool enough = (x == 0).sum().item<int64_t>() >= std::ceil(threshold * x.numel());
        EXPECT_TRUE(at::equal(y, enough ? x : pruned(x, threshold)))
            << dtype << " density " << density << " threshold " << threshold;
        EXPECT_TRUE((values != 0).all().item<bool>());
        EXPECT_EQ(indices.scalar_type(), at::kInt);
      }
      const auto [indices, values] = sparsify_cpu(x, 0.5, false);
      EXPECT_TRUE(at::equal(densify_cpu(indices, values, x.sizes()), x));
    }
  }
}

TEST(SparseOpsTest, ThreadsAndStridesDoNotMatter) {
  at::manual_seed(2);
  const int before = at::get_num_threads();
  for (const double density : {0.2, 0.9}) {
    const at::Tensor x = sparse_values({2000, 517}, density).t();
    at::set_num_threads(1);
    const auto [indices, values] = sparsify_cpu(x.contiguous(), 0.5, true);
    const CompressedTensorPtr c = compress_with(*find_codec("sparse"), x, {});
    for (const int threads : {2, 3}) {
      at::set_num_threads(threads);
      for (int repeat = 0; repeat < 5; ++repeat) {
        const auto [indices2, values2] = sparsify_cpu(x, 0.5, true);
        EXPECT_TRUE(at::equal(indices, indices2) && at::equal(values, values2));
      }
      EXPECT_TRUE(at::equal(densify_cpu(indices, values, x.sizes()), c->decompress()));
      const CompressedTensorPtr c2 = compress_with(*find_codec("sparse"), x, {});
      EXPECT_TRUE(at::equal(c->parts()[0], c2->parts()[0]));
      EXPECT_TRUE(at::equal(c->parts()[1], c2->parts()[1]));
    }
  }
  at::set_num_threads(before);
}

// A tensor whose sample promises more zeros than there are: the first pass finds no room.
TEST(SparseOpsTest, ASampleThatMisleadsChangesNothing) {
  at::manual_seed(3);
  const int64_t n = 1 << 20;
  at::Tensor x = at::randn({n / 16, 16});
  for (int64_t run = 0; run < 512; ++run) x[run * (n / 16 / 512)].zero_();
  const auto [indices, values] = sparsify_cpu(x, 0.5, true);
  EXPECT_EQ(values.numel(), n / 2);
  EXPECT_TRUE(at::equal(densify_cpu(indices, values, x.sizes()), pruned(x, 0.5)));
}

TEST(SparseOpsTest, WhatIsReturnedOwnsItsBytesAlone) {
  at::manual_seed(4);
  const at::Tensor x = sparse_values({1 << 20}, 0.1);
  const auto [indices, values] = sparsify_cpu(x, 0.0, true);
  for (const at::Tensor& part : {indices, values}) {
    EXPECT_EQ(part.storage().nbytes(), static_cast<size_t>(part.nbytes()));
    EXPECT_FALSE(part.is_alias_of(x));
  }
}

TEST(SparseOpsTest, RefusesWhatIsNotFiniteWhereItPrunes) {
  for (const int64_t at : {0, 70000, 199999}) {
    for (const double density : {0.1, 1.0}) {
      at::Tensor x = sparse_values({200000}, density);
      x[at] = std::numeric_limits<float>::quiet_NaN();
      const std::string error = error_of([&] { sparsify_cpu(x, 0.5, true); });
      EXPECT_NE(error.find("1 value that is NaN or infinite, the first at index [" +
                           std::to_string(at) + "]"),
                std::string::npos)
          << error;
      EXPECT_THROW(compress_with(*find_codec("sparse"), x, {}), c10::ValueError);
      const auto [indices, values] = sparsify_cpu(x, 0.5, false);
      EXPECT_TRUE(
          at::equal(densify_cpu(indices, values, x.sizes()).view(at::kInt), x.view(at::kInt)));
    }
  }
}

TEST(SparseOpsTest, ErrorsSayWhatIsWrong) {
  const at::Tensor x = at::ones({2, 3}), values = at::ones({2});
  const auto expect = [](const std::string& part, const auto& f) {
    EXPECT_NE(error_of(f).find(part), std::string::npos) << error_of(f);
  };
  expect("sparsify: expected sparsity_threshold to be in [0, 1], got 1.5",
         [&] { sparsify_cpu(x, 1.5, true); });
  expect("expected sparsity_threshold to be in [0, 1], got nan",
         [&] { sparsify_cpu(x, std::nan(""), false); });
  expect("expected x to be float32, float16 or bfloat16, got int64 with shape [2, 3]",
         [&] { sparsify_cpu(x.to(at::kLong), 0.5, true); });
  const auto densify = [&](std::vector<int64_t> indices) {
    return [&, indices] { densify_cpu(at::tensor(indices, at::kLong), values, {2, 3}); };
  };
  expect("expected indices to be in [0, 6), got 6 at position 1", densify({2, 6}));
  expect("expected indices to be in [0, 6), got -1 at position 0", densify({-1, 2}));
  expect("sorted and distinct, got 2 after 2 at position 1", densify({2, 2}));
  expect("sorted and distinct, got 1 after 4 at position 1", densify({4, 1}));
  expect("expected as many indices as values, 2, got 3", densify({1, 2, 3}));
  expect("expected at most 1 indices for shape [1], got 2", [&] {
    densify_cpu(at::tensor({0, 1}, at::kInt), values, {1});
  });
  expect("expected shape to have no negative size, got [-2]", [&] {
    densify_cpu(at::tensor({0, 1}, at::kInt), values, {-2});
  });
  expect("expected indices to be int32 or int64, got int16", [&] {
    densify_cpu(at::tensor({0, 1}, at::kShort), values, {6});
  });
  expect("expected indices to be flat", [&] {
    densify_cpu(at::zeros({1, 2}, at::kInt), values, {6});
  });
  expect("expected values to be float32, float16 or bfloat16, got float64", [&] {
    densify_cpu(at::tensor({0, 1}, at::kInt), values.to(at::kDouble), {6});
  });
}

TEST(SparseOpsTest, EveryFormOfTheIndexGivesTorchsOwnSparseTensor) {
  at::manual_seed(5);
  CompressOptions options;
  options.sparsity_threshold = 0.0;
  std::vector<int64_t> forms;
  for (const double density : {0.5, 0.05, 0.001}) {
    for (const at::ScalarType dtype : kDTypes) {
      const at::Tensor x = sparse_values({40, 7, 211}, density, dtype);
      const CompressedTensorPtr c = compress_with(*find_codec("sparse"), x, options);
      if (dtype == at::kFloat) forms.push_back(c->payload().params[0]);
      const at::Tensor coo = c->to_sparse_coo(), expected = x.to_sparse();
      EXPECT_TRUE(coo.is_coalesced());
      EXPECT_EQ(coo.sizes(), x.sizes());
      EXPECT_TRUE(at::equal(coo.indices(), expected.indices()));
      EXPECT_TRUE(at::equal(coo.values(), expected.values()));
    }
  }
  EXPECT_EQ(forms, (std::vector<int64_t>{0, 1, 2}));
  for (const at::Tensor& x :
       {at::full({}, 3.0f), at::zeros({}), at::zeros({4, 0}), at::zeros({3})}) {
    const at::Tensor coo = compress_with(*find_codec("sparse"), x, options)->to_sparse_coo();
    EXPECT_EQ(coo.sizes(), x.sizes());
    EXPECT_TRUE(at::equal(coo.to_dense(), x));
  }
}

TEST(SparseOpsTest, ADamagedIndexIsRefused) {
  at::manual_seed(6);
  const Codec& codec = *find_codec("sparse");
  for (const double density : {0.5, 0.05, 0.001}) {
    const CompressedTensorPtr c = compress_with(codec, sparse_values({70000}, density), {});
    Payload damaged = c->payload();
    damaged.parts[0] = damaged.parts[0].clone();
    damaged.parts[0][0].bitwise_xor_(1);  // of the first unit's count
    codec.check(damaged, c->info());
    EXPECT_THROW(codec.decode(damaged, c->info()), c10::ValueError);
    EXPECT_THROW(codec.to_sparse_coo(damaged, c->info()), c10::ValueError);
    for (const int64_t form : {-1, 3}) {
      Payload payload = c->payload();
      payload.params[0] = form;
      EXPECT_THROW(codec.check(payload, c->info()), c10::ValueError);
    }
  }
}

TEST(SparseOpsTest, LeastBytesAreWhatIsHeld) {
  at::manual_seed(7);
  const Codec& codec = *find_codec("sparse");
  for (const double density : {0.0, 0.001, 0.05, 0.4, 1.0}) {
    const at::Tensor x = sparse_values({301, 100}, density);
    EXPECT_EQ(codec.least_bytes(x, {}, x.nbytes()), compress_with(codec, x, {})->nbytes());
  }
}

}  // namespace
}  // namespace qvlmem::ops
