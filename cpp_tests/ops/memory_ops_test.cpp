// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "ops/base/parallel.h"
#include "ops/memory/config.h"
#include "ops/memory/hierarchical_cache.h"
#include "ops/memory/manager.h"
#include "ops/memory/pool.h"

namespace qvlmem {
namespace {

std::string error_of(const std::string& text) {
  try {
    Config().overlaid(text, "here");
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "";
}

TEST(ConfigTest, LaterTextLiesOverEarlierText) {
  const Config first = Config().overlaid(" max_error : 0.5 ,bound:row,", "here");
  const Config second = first.overlaid("max_error:1e-3", "here");
  EXPECT_EQ(first.max_error(), 0.5);
  EXPECT_EQ(second.max_error(), 1e-3);
  EXPECT_EQ(second.bound(), Bound::kRow);
  EXPECT_EQ(second.prefer(), Prefer::kSize);
  EXPECT_EQ(second.overlaid("prefer:balanced", "here").prefer(), Prefer::kBalanced);
  EXPECT_EQ(second.overlaid("prefer:speed", "here").prefer(), Prefer::kSpeed);
  EXPECT_EQ(Config().overlaid("", "here").values(), Config().values());
}

TEST(ConfigTest, SizesAreBytesUnitsOrFractions) {
  const auto bytes = [](const std::string& text) {
    return Config().overlaid("cpu_budget:" + text, "here").bytes("cpu_budget", 1000);
  };
  EXPECT_EQ(bytes("0"), 0);
  EXPECT_EQ(bytes("1"), 1);
  EXPECT_EQ(bytes("4096"), 4096);
  EXPECT_EQ(bytes("64KiB"), 65536);
  EXPECT_EQ(bytes("1.5MiB"), 1572864);
  EXPECT_EQ(bytes("0.8"), 800);
  EXPECT_EQ(bytes("1.0"), 1000);
  EXPECT_EQ(bytes("unlimited"), std::numeric_limits<int64_t>::max());
}

TEST(ConfigTest, ErrorsNameKeyValueAndWhatIsAccepted) {
  for (const std::string text :
       {"cpu_budget:-1", "cpu_budget:1.5", "cpu_budget:1GB", "cpu_budget:1 MiB x", "max_error:nan",
        "max_error:", "bound:rows", "method:zip", "prefer:fast", "policy:fifo", "io:aio",
        "persist:1", "threads:1.5", "threads:-1", "cpu_budget: inf", "cpu_budget:9e99"}) {
    const std::string error = error_of(text);
    EXPECT_NE(error.find("here"), std::string::npos) << text;
    EXPECT_NE(error.find("'" + text.substr(0, text.find(':')) + "'"), std::string::npos) << error;
    EXPECT_NE(error.find("accepted: "), std::string::npos) << error;
  }
  EXPECT_NE(error_of("colour:red").find("unknown key 'colour'"), std::string::npos);
  EXPECT_NE(error_of("bound").find("has no value"), std::string::npos);
}

TEST(ThreadsTest, TheLimitHoldsForThisThreadWhileTheGuardLives) {
  const auto pieces = [] {
    std::atomic<int> count{0};
    ops::parallel_units(1000, 1, [&](int64_t begin, int64_t end) {
      EXPECT_LT(begin, end);
      ++count;
    });
    return count.load();
  };
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  EXPECT_EQ(pieces(), 2);
  {
    const ops::ThreadLimitGuard guard(1);
    EXPECT_EQ(pieces(), 1);
    const ops::ThreadLimitGuard inner(0);
    EXPECT_EQ(pieces(), 2);
  }
  ops::set_process_thread_limit(1);
  EXPECT_EQ(pieces(), 1);
  ops::set_process_thread_limit(0);
  EXPECT_EQ(pieces(), 2);
  at::set_num_threads(before);
}

TEST(ManagerTest, CountsWhatItDid) {
  CompressionManager manager("method:int8");
  const at::Tensor x = at::randn({16, 256});
  int64_t held = 0;
  for (int i = 0; i < 3; ++i) held += manager.compress_tensor(x, "auto")->nbytes();
  manager.compress_tensor(at::randn({}), "int8");  // does not become smaller
  const auto stats = manager.get_compression_stats();
  const double original = 3.0 * x.nbytes() + 4;
  EXPECT_EQ(stats.at("compression_attempts"), 4);
  EXPECT_EQ(stats.at("tensors_compressed"), 3);
  EXPECT_EQ(stats.at("memory_saved_bytes"), original - held - 5);
  EXPECT_DOUBLE_EQ(stats.at("average_compression_ratio"), original / (held + 5));
  EXPECT_GT(stats.at("compression_time_seconds"), 0);
  manager.reset_stats();
  EXPECT_EQ(manager.get_compression_stats().at("compression_attempts"), 0);
}

TEST(ManagerTest, ManyThreadsShareOne) {
  CompressionManager manager("method:int4");
  const at::Tensor x = at::randn({8, 64});
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        manager.decompress_tensor(manager.compress_tensor(x, "auto"));
        manager.get_compression_stats();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(manager.get_compression_stats().at("compression_attempts"), 400);
}

c10::intrusive_ptr<HierarchicalCache> make_cache(const std::string& config) {
  return c10::make_intrusive<HierarchicalCache>(c10::make_intrusive<CompressionManager>(""),
                                                config);
}

TEST(CacheTest, StaysWithinItsBudgetAndKeepsWhatItHas) {
  const auto cache = make_cache("cpu_budget:10KiB,method:none");
  const at::Tensor x = at::randn({1024});  // 4 KiB
  cache->put("a", x);
  cache->put("b", x + 1);
  EXPECT_THROW(cache->put("c", x), c10::OutOfMemoryError);
  EXPECT_THROW(cache->put("a", at::randn({1 << 14})), c10::OutOfMemoryError);
  EXPECT_TRUE(at::equal(cache->get("a"), x));
  cache->put("b", x);  // in the place of the old one
  EXPECT_EQ(cache->keys(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(cache->stats().at("cpu_bytes"), 8192);
  EXPECT_TRUE(cache->remove("a"));
  EXPECT_FALSE(cache->remove("a"));
  EXPECT_EQ(cache->stats().at("cpu_bytes"), 4096);
  cache->clear();
  EXPECT_EQ(cache->stats().at("cpu_bytes"), 0);
}

TEST(CacheTest, TakesSnapshotsGivesFreshTensorsAndNamesMissingKeys) {
  const auto cache = make_cache("max_error:0");
  at::Tensor x = at::randn({3, 5});
  const at::Tensor before = x.clone();
  cache->put("a", x);
  x.zero_();
  cache->get("a").zero_();
  EXPECT_TRUE(at::equal(cache->get("a"), before));
  EXPECT_EQ(cache->tier_of("a"), "cpu");
  try {
    cache->get("no such key");
    FAIL();
  } catch (const c10::IndexError& error) {
    EXPECT_NE(std::string(error.what()).find("no such key"), std::string::npos);
  }
  EXPECT_EQ(cache->stats().at("hits"), 2);
  EXPECT_EQ(cache->stats().at("misses"), 1);
}

TEST(CacheTest, TakesWhatIsCompressedAlready) {
  const auto cache = make_cache("cpu_budget:10KiB");
  const at::Tensor x = at::randn({1024});
  const CompressedTensorPtr c = compress(x, "int8");
  cache->put_compressed("a", c);
  EXPECT_EQ(cache->stats().at("cpu_bytes"), c->nbytes());
  EXPECT_EQ(cache->stats().at("compression_attempts"), 0);
  EXPECT_TRUE(at::equal(cache->get("a"), c->decompress()));
  EXPECT_THROW(cache->put_compressed("a", compress(at::randn({4096}), "none")),
               c10::OutOfMemoryError);
  EXPECT_TRUE(at::equal(cache->get("a"), c->decompress()));
}

TEST(CacheTest, ItsOwnConfigurationGoesBeforeItsManagers) {
  const auto manager = c10::make_intrusive<CompressionManager>("method:int8,cpu_budget:1");
  HierarchicalCache cache(manager, "cpu_budget:1MiB");
  cache.put("a", at::randn({64, 128}));
  EXPECT_LT(cache.stats().at("cpu_bytes"), 64 * 128 * 2);
  EXPECT_EQ(manager->get_compression_stats().at("compression_attempts"), 1);
  EXPECT_THROW(HierarchicalCache(manager, "spill_dir:/somewhere"), c10::NotImplementedError);
}

TEST(CacheTest, ManyThreadsNeverExceedTheBudget) {
  const auto cache = make_cache("cpu_budget:40KiB,method:none");
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      const at::Tensor x = at::full({1024}, t);
      for (int i = 0; i < 100; ++i) {
        const std::string key = std::to_string((t + i) % 12);
        try {
          cache->put(key, x);
        } catch (const c10::OutOfMemoryError&) {
          cache->remove(key);
        }
        EXPECT_LE(cache->stats().at("cpu_bytes"), 40 * 1024);
        if (cache->contains(key)) {
          try {
            const at::Tensor y = cache->get(key);
            EXPECT_TRUE(at::equal(y, y[0].expand({1024})));
          } catch (const c10::IndexError&) {  // another thread removed it meanwhile
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(PoolTest, ReusesMemoryAndGivesItBack) {
  MemoryPool pool("activations", "");
  const void* first;
  {
    const at::Tensor x = pool.empty({100, 100}, at::kFloat);
    first = x.const_data_ptr();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
    EXPECT_EQ(pool.stats().at("allocated_bytes"), 40000);
  }
  EXPECT_EQ(pool.stats().at("allocated_bytes"), 0);
  EXPECT_GE(pool.stats().at("reserved_bytes"), 40000);
  EXPECT_EQ(pool.empty({9999}, at::kFloat).const_data_ptr(), first);
  EXPECT_EQ(pool.stats().at("hits"), 1);
  pool.trim();
  EXPECT_EQ(pool.stats().at("reserved_bytes"), 0);
}

TEST(PoolTest, HoldsCompressedTensorsInItsMemory) {
  MemoryPool pool("kv_cache", "cpu_budget:1MiB");
  const at::Tensor x = at::randn({64, 128});
  for (const std::string method : {"int8", "svd", "none", "auto"}) {
    const CompressedTensorPtr c = compress(x, method);
    const CompressedTensorPtr held = pool.hold(c);
    EXPECT_EQ(held->method(), c->method());
    EXPECT_EQ(held->nbytes(), c->nbytes());
    EXPECT_EQ(held->relative_error(), c->relative_error());
    EXPECT_EQ(pool.stats().at("allocated_bytes"), c->nbytes());
    EXPECT_TRUE(at::equal(pack(held), pack(c)));
    EXPECT_TRUE(at::equal(held->decompress(), c->decompress()));
    for (const at::Tensor& part : c->parts()) part.zero_();
    EXPECT_GT(held->decompress().count_nonzero().item<int64_t>(), 0);
  }
  EXPECT_EQ(pool.stats().at("allocated_bytes"), 0);
  const CompressedTensorPtr large = compress(at::randn({1 << 20}), "none");
  EXPECT_THROW(pool.hold(large), c10::OutOfMemoryError);
}

TEST(PoolTest, RefusesWhatItCannotDo) {
  EXPECT_THROW(MemoryPool("gradients", ""), c10::ValueError);
  MemoryPool pool("weights", "cpu_budget:1MiB");
  EXPECT_THROW(pool.empty({-1}, at::kFloat), c10::ValueError);
  EXPECT_THROW(pool.empty({int64_t{1} << 40, int64_t{1} << 40}, at::kFloat), c10::ValueError);
  EXPECT_THROW(pool.empty({1 << 20}, at::kFloat), c10::OutOfMemoryError);
  const at::Tensor x = pool.empty({1 << 17}, at::kFloat);
  // Free blocks of another size make room.
  { const at::Tensor y = pool.empty({1 << 16}, at::kFloat); }
  const at::Tensor z = pool.empty({1 << 17}, at::kFloat);
  EXPECT_LE(pool.stats().at("reserved_bytes"), 1 << 20);
  EXPECT_EQ(pool.empty({0, 5}, at::kHalf).numel(), 0);
}

TEST(PoolTest, ATensorMayOutliveItsPool) {
  at::Tensor x;
  {
    MemoryPool pool("temporary", "");
    x = pool.empty({4096}, at::kFloat);
  }
  x.fill_(3);
  EXPECT_EQ(x.sum().item<float>(), 3 * 4096);
}

}  // namespace
}  // namespace qvlmem
