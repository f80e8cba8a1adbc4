// SPDX-License-Identifier: Apache-2.0
#include "ops/memory/statistics.h"

#include <qvlmem/qvlmem.h>

namespace qvlmem {

Statistics& Statistics::of_process() {
  static auto* sums = new Statistics;  // outlives whatever counts at exit
  return *sums;
}

template <class Change>
void Statistics::apply(Change change) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    change(&counts_);
  }
  if (parent_ != nullptr) {
    parent_->apply(change);
  } else if (this != &of_process()) {
    of_process().apply(change);
  }
}

void Statistics::count_compression(int64_t original_bytes, int64_t compressed_bytes,
                                   double seconds) {
  apply([=](StatisticsCounts* counts) {
    counts->compression_attempts += 1;
    counts->tensors_compressed += compressed_bytes < original_bytes;
    counts->original_bytes += original_bytes;
    counts->compressed_bytes += compressed_bytes;
    counts->compression_seconds += seconds;
  });
}

void Statistics::count_decompression(double seconds) {
  apply([=](StatisticsCounts* counts) { counts->decompression_seconds += seconds; });
}

void Statistics::count_lookup(bool hit) {
  apply([=](StatisticsCounts* counts) { (hit ? counts->hits : counts->misses) += 1; });
}

void Statistics::add_cpu_bytes(int64_t difference) {
  apply([=](StatisticsCounts* counts) { counts->cpu_bytes += difference; });
}

c10::Dict<std::string, double> Statistics::as_dict() const {
  StatisticsCounts counts;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    counts = counts_;
  }
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  c10::Dict<std::string, double> dict;
  dict.insert("tensors_compressed", number(counts.tensors_compressed));
  dict.insert("compression_attempts", number(counts.compression_attempts));
  dict.insert("average_compression_ratio",
              counts.compressed_bytes == 0
                  ? 1.0
                  : number(counts.original_bytes) / number(counts.compressed_bytes));
  dict.insert("compression_time_seconds", counts.compression_seconds);
  dict.insert("decompression_time_seconds", counts.decompression_seconds);
  dict.insert("memory_saved_bytes", number(counts.original_bytes - counts.compressed_bytes));
  dict.insert("gpu_bytes", 0.0);
  dict.insert("cpu_bytes", number(counts.cpu_bytes));
  dict.insert("ssd_bytes", 0.0);
  dict.insert("hits", number(counts.hits));
  dict.insert("misses", number(counts.misses));
  dict.insert("evictions", 0.0);
  dict.insert("spill_write_bytes", 0.0);
  dict.insert("spill_read_bytes", 0.0);
  return dict;
}

void Statistics::reset() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t held = counts_.cpu_bytes;
  counts_ = StatisticsCounts{};
  counts_.cpu_bytes = held;
}

c10::Dict<std::string, double> memory_stats() { return Statistics::of_process().as_dict(); }

}  // namespace qvlmem
