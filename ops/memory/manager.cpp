// SPDX-License-Identifier: Apache-2.0
#include "ops/memory/manager.h"

#include <qvlmem/qvlmem.h>

#include <chrono>

#include "ops/base/parallel.h"

namespace qvlmem {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

CompressionManager::CompressionManager(std::string config)
    : config_(process_config().overlaid(config, "CompressionManager: config")) {}

CompressedTensorPtr CompressionManager::compress_counted(const at::Tensor& x,
                                                         const std::string& method,
                                                         const Config& config,
                                                         Statistics* statistics) {
  CompressOptions options;
  options.max_error = config.max_error();
  options.bound = config.bound();
  options.prefer = config.prefer();
  const ops::ThreadLimitGuard guard(config.threads());
  const auto begin = std::chrono::steady_clock::now();
  CompressedTensorPtr c = compress(x, method == "auto" ? config.value("method") : method, options);
  statistics->count_compression(c->original_nbytes(), c->nbytes(), seconds_since(begin));
  return c;
}

at::Tensor CompressionManager::decompress_counted(const CompressedTensorPtr& c,
                                                  const Config& config, Statistics* statistics) {
  const ops::ThreadLimitGuard guard(config.threads());
  const auto begin = std::chrono::steady_clock::now();
  at::Tensor x = c->decompress();
  statistics->count_decompression(seconds_since(begin));
  return x;
}

c10::Dict<std::string, std::string> CompressionManager::config_dict() const {
  c10::Dict<std::string, std::string> dict;
  for (const auto& [key, value] : config_.values()) dict.insert(key, value);
  return dict;
}

}  // namespace qvlmem
