// SPDX-License-Identifier: Apache-2.0
#include "ops/memory/hierarchical_cache.h"

namespace qvlmem {

HierarchicalCache::HierarchicalCache(c10::intrusive_ptr<CompressionManager> manager,
                                     std::string config)
    : manager_(std::move(manager)),
      config_(manager_->config().overlaid(config, "HierarchicalCache: config")),
      cpu_budget_(config_.bytes("cpu_budget", physical_memory_bytes())),
      statistics_(std::make_shared<Statistics>(manager_->statistics())) {
  TORCH_CHECK_NOT_IMPLEMENTED(config_.value("spill_dir").empty(),
                              "qvlmem::HierarchicalCache: expected no spill_dir, got '",
                              config_.value("spill_dir"), "': this version has no disk tier");
}

HierarchicalCache::~HierarchicalCache() { clear(); }

void HierarchicalCache::put(const std::string& key, const at::Tensor& x) {
  put_compressed(key, CompressionManager::compress_counted(x, "auto", config_, statistics_.get()));
}

void HierarchicalCache::put_compressed(const std::string& key, const CompressedTensorPtr& c) {
  // What is replaced goes when the lock is free again.
  Entry entry{c->to(at::kCPU), c->device()};
  const int64_t fresh_bytes = entry.held->nbytes();
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(key);
  const int64_t old_bytes = found == entries_.end() ? 0 : found->second.held->nbytes();
  TORCH_CHECK_WITH(OutOfMemoryError, fresh_bytes <= cpu_budget_ - (cpu_bytes_ - old_bytes),
                   "qvlmem::HierarchicalCache.put: no tier has room for key '", key,
                   "': expected at most ", cpu_budget_ - (cpu_bytes_ - old_bytes),
                   " bytes (cpu_budget ", cpu_budget_, ", held ", cpu_bytes_ - old_bytes, "), got ",
                   fresh_bytes);
  if (found == entries_.end()) {
    entries_.emplace(key, std::move(entry));
  } else {
    std::swap(found->second, entry);
  }
  cpu_bytes_ += fresh_bytes - old_bytes;
  statistics_->add_cpu_bytes(fresh_bytes - old_bytes);
}

at::Tensor HierarchicalCache::get(const std::string& key) {
  std::optional<Entry> entry;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = entries_.find(key);
    if (found != entries_.end()) entry = found->second;
  }
  statistics_->count_lookup(entry.has_value());
  TORCH_CHECK_INDEX(entry.has_value(),
                    "qvlmem::HierarchicalCache.get: expected a key that is stored, got '", key,
                    "'");
  return CompressionManager::decompress_counted(entry->held->to(entry->device), config_,
                                                statistics_.get());
}

bool HierarchicalCache::contains(const std::string& key) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return entries_.count(key) != 0;
}

std::string HierarchicalCache::tier_of(const std::string& key) const {
  TORCH_CHECK_INDEX(contains(key),
                    "qvlmem::HierarchicalCache.tier_of: expected a key that is stored, got '", key,
                    "'");
  return "cpu";
}

void HierarchicalCache::prefetch(const std::vector<std::string>&) {
  // With one tier everything lies in the fastest already.
}

bool HierarchicalCache::remove(const std::string& key) {
  CompressedTensorPtr old;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return false;
  old = std::move(found->second.held);
  entries_.erase(found);
  cpu_bytes_ -= old->nbytes();
  statistics_->add_cpu_bytes(-old->nbytes());
  return true;
}

std::vector<std::string> HierarchicalCache::keys() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::string> keys;
  keys.reserve(entries_.size());
  for (const auto& [key, entry] : entries_) keys.push_back(key);
  return keys;
}

void HierarchicalCache::flush() {
  // Nothing is written behind: there is no disk tier.
}

void HierarchicalCache::clear() {
  std::map<std::string, Entry> old;
  const std::lock_guard<std::mutex> lock(mutex_);
  old.swap(entries_);
  statistics_->add_cpu_bytes(-std::exchange(cpu_bytes_, 0));
}

}  // namespace qvlmem
