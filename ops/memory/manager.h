// SPDX-License-Identifier: Apache-2.0
// torch.classes.qvlmem.CompressionManager: compress with one configuration, and count.
#pragma once

#include <torch/custom_class.h>

#include <memory>
#include <string>

#include "ops/codec/codec.h"
#include "ops/memory/config.h"
#include "ops/memory/statistics.h"

namespace qvlmem {

// Thread-safe.
class CompressionManager final : public torch::CustomClassHolder {
 public:
  // The process's configuration with `config` laid over it. ValueError for a bad one.
  explicit CompressionManager(std::string config);

  // method: as for qvlmem::compress; auto is what the configuration's key `method` says.
  CompressedTensorPtr compress_tensor(const at::Tensor& x, const std::string& method) {
    return compress_counted(x, method, config_, statistics_.get());
  }
  at::Tensor decompress_tensor(const CompressedTensorPtr& c) {
    return decompress_counted(c, config_, statistics_.get());
  }

  // The same for somebody with a configuration and statistics of his own.
  static CompressedTensorPtr compress_counted(const at::Tensor& x, const std::string& method,
                                              const Config& config, Statistics* statistics);
  static at::Tensor decompress_counted(const CompressedTensorPtr& c, const Config& config,
                                       Statistics* statistics);

  c10::Dict<std::string, double> get_compression_stats() const { return statistics_->as_dict(); }
  void reset_stats() { statistics_->reset(); }

  // Every key with the value in force.
  c10::Dict<std::string, std::string> config_dict() const;
  const Config& config() const { return config_; }
  const std::shared_ptr<Statistics>& statistics() const { return statistics_; }

 private:
  Config config_;
  std::shared_ptr<Statistics> statistics_ = std::make_shared<Statistics>();
};

}  // namespace qvlmem
