// SPDX-License-Identifier: Apache-2.0
// Counters under the names that every class and memory_stats use (docs: the statistics' table).
#pragma once

#include <ATen/core/Dict.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

namespace qvlmem {

struct StatisticsCounts {
  int64_t compression_attempts = 0;
  int64_t tensors_compressed = 0;  // attempts whose result is smaller than the tensor
  int64_t original_bytes = 0;
  int64_t compressed_bytes = 0;
  double compression_seconds = 0.0;
  double decompression_seconds = 0.0;
  int64_t cpu_bytes = 0;  // held now, not since the reset
  int64_t hits = 0;
  int64_t misses = 0;
};

// Thread-safe. What is counted here is counted by the parent too: a cache's by its manager, a
// manager's by the process.
class Statistics {
 public:
  // nullptr: the process's.
  explicit Statistics(std::shared_ptr<Statistics> parent = nullptr) : parent_(std::move(parent)) {}

  void count_compression(int64_t original_bytes, int64_t compressed_bytes, double seconds);
  void count_decompression(double seconds);
  void count_lookup(bool hit);
  void add_cpu_bytes(int64_t difference);

  c10::Dict<std::string, double> as_dict() const;
  void reset();

  // The sums over the process: memory_stats.
  static Statistics& of_process();

 private:
  template <class Change>
  void apply(Change change);

  std::shared_ptr<Statistics> parent_;
  mutable std::mutex mutex_;
  StatisticsCounts counts_;
};

}  // namespace qvlmem
