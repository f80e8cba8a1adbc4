// SPDX-License-Identifier: Apache-2.0
// Units of which each can be worked on at once, but placed only when the one before it has its
// place: what an encoding of several threads needs whose sizes depend on the data.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace qvlmem::ops {

// Threads take units in order, work, and wait for their unit's turn. Whoever has the first unit
// that has no place yet never waits, so that even a single thread comes through.
class Turns {
 public:
  explicit Turns(int64_t count) : count_(count) {}

  // The next unit, or at least `count` where there are none left.
  int64_t take() { return next_.fetch_add(1); }

  // Returns when every unit before this one has passed; what they wrote before is then seen. A turn
  // comes within microseconds, long before a sleeping thread would wake up. Not so where the one
  // whose turn it is waits for a core itself: then it gets this one.
  void wait(int64_t unit) const {
    constexpr int kSpins = 2000;
    for (int spins = 0; turn_.load(std::memory_order_acquire) != unit; ++spins) {
      if (spins >= kSpins) std::this_thread::yield();
    }
  }

  // Ends this unit's turn.
  void pass(int64_t unit) { turn_.store(unit + 1, std::memory_order_release); }

  // Has nobody take another unit. Those that are taken already still get their turns.
  void stop() { next_ = count_; }

 private:
  const int64_t count_;
  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> turn_{0};
};

}  // namespace qvlmem::ops
