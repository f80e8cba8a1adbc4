// SPDX-License-Identifier: Apache-2.0
#include "ops/base/parallel.h"

#include <atomic>

namespace qvlmem::ops {
namespace {

constexpr int64_t kNotSet = -1;

std::atomic<int64_t> process_limit{0};
thread_local int64_t own_limit = kNotSet;

}  // namespace

int64_t thread_limit() {
  return own_limit != kNotSet ? own_limit : process_limit.load(std::memory_order_relaxed);
}

void set_process_thread_limit(int64_t threads) {
  process_limit.store(threads, std::memory_order_relaxed);
}

ThreadLimitGuard::ThreadLimitGuard(int64_t threads) : before_(own_limit) { own_limit = threads; }

ThreadLimitGuard::~ThreadLimitGuard() { own_limit = before_; }

}  // namespace qvlmem::ops
