// SPDX-License-Identifier: Apache-2.0
// Splitting units among PyTorch's threads, at most as many as the configuration's key `threads`
// says.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

#include "kernels/base/checked.h"

namespace qvlmem::ops {

// Threads that an op called from this thread may use; 0: as many as PyTorch has.
int64_t thread_limit();
// The limit of the process: configure's.
void set_process_thread_limit(int64_t threads);

// The limit of this thread while it lives: a manager's own configuration.
class ThreadLimitGuard {
 public:
  explicit ThreadLimitGuard(int64_t threads);
  ~ThreadLimitGuard();
  ThreadLimitGuard(const ThreadLimitGuard&) = delete;
  ThreadLimitGuard& operator=(const ThreadLimitGuard&) = delete;

 private:
  int64_t before_;
};

// x86 orders streaming stores, with which kernels write large outputs, after nothing by itself:
// another thread could be told of an output before it is there.
inline void order_streaming_stores() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

// Calls f(begin, end) for pieces of [0, count), none shorter than `grain` units but the last.
template <class F>
void parallel_units(int64_t count, int64_t grain, const F& f) {
  const int64_t limit = thread_limit();
  if (limit > 0) grain = std::max(grain, ceil_div(count, limit));
  at::parallel_for(0, count, grain, [&f](int64_t begin, int64_t end) {
    f(begin, end);
    order_streaming_stores();
  });
}

}  // namespace qvlmem::ops
