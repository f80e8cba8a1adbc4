// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "ops/memory/config.h"
#include "ops/memory/manager.h"

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

}  // namespace
}  // namespace qvlmem
