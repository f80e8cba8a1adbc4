// SPDX-License-Identifier: Apache-2.0
// torch.classes.qvlmem.HierarchicalCache: tensors by key, held compressed within byte budgets.
#pragma once

#include <torch/custom_class.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ops/memory/manager.h"

namespace qvlmem {

// Thread-safe. This version has one tier, cpu; its budget is the configuration's cpu_budget, which
// is never exceeded. Tensors are compressed and decompressed outside the lock.
class HierarchicalCache final : public torch::CustomClassHolder {
 public:
  // The manager's configuration with `config` laid over it. NotImplementedError for a spill_dir.
  HierarchicalCache(c10::intrusive_ptr<CompressionManager> manager, std::string config);
  ~HierarchicalCache() override;

  // Stores a snapshot of x, in place of what the key had. OutOfMemoryError where no tier has room:
  // what is stored stays, the key's old value too.
  void put(const std::string& key, const at::Tensor& x);
  // The same with what is compressed already. It is shared, not copied, where it lies on the cpu.
  void put_compressed(const std::string& key, const CompressedTensorPtr& c);
  // A fresh tensor on the device that it came from, as often as wanted. IndexError names a key that
  // is missing.
  at::Tensor get(const std::string& key);
  bool contains(const std::string& key) const;
  // gpu, cpu or ssd. IndexError for a missing key.
  std::string tier_of(const std::string& key) const;
  // Brings keys up where they lie in a slower tier than they could. A hint: a missing key is no
  // error.
  void prefetch(const std::vector<std::string>& keys);
  // False where there was none.
  bool remove(const std::string& key);
  std::vector<std::string> keys() const;  // sorted
  // Returns when everything that is to be on disk is there.
  void flush();
  void clear();
  c10::Dict<std::string, double> stats() const { return statistics_->as_dict(); }

  const c10::intrusive_ptr<CompressionManager>& manager() const { return manager_; }
  const Config& config() const { return config_; }

 private:
  struct Entry {
    CompressedTensorPtr held;  // on the cpu
    at::Device device;         // of the tensor that was put
  };

  c10::intrusive_ptr<CompressionManager> manager_;
  Config config_;
  int64_t cpu_budget_;
  std::shared_ptr<Statistics> statistics_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  int64_t cpu_bytes_ = 0;
};

}  // namespace qvlmem
