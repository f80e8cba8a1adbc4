// SPDX-License-Identifier: Apache-2.0
#include "ops/base/heap.h"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <optional>

namespace qvlmem::ops {

// mallinfo2 came with glibc 2.33; before that, counts wrap at 4 GiB and there is no telling.
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
namespace {

constexpr int64_t kGrowth = int64_t{64} << 20;

// Resident bytes of this process that no file stands behind.
std::optional<int64_t> anonymous_bytes() {
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  char text[128];
  const ssize_t count = read(file, text, sizeof text - 1);
  close(file);
  if (count <= 0) return std::nullopt;
  text[count] = '\0';
  long long resident = 0, shared = 0;
  if (std::sscanf(text, "%*s %lld %lld", &resident, &shared) != 2) return std::nullopt;
  return (resident - shared) * sysconf(_SC_PAGESIZE);
}

// What is resident beyond what malloc gave out: its holes, and whatever did not come from it. Not
// mallinfo2's count of free bytes, in which pages that went back stay.
std::optional<int64_t> idle_bytes() {
  const std::optional<int64_t> anonymous = anonymous_bytes();
  if (!anonymous) return std::nullopt;
  const struct mallinfo2 info = mallinfo2();
  return *anonymous - static_cast<int64_t>(info.uordblks + info.hblkhd);
}

}  // namespace

void release_free_heap() {
  static std::mutex mutex;
  static std::optional<int64_t> least_idle;
  const std::lock_guard<std::mutex> lock(mutex);
  const std::optional<int64_t> idle = idle_bytes();
  if (!idle) return;
  least_idle = std::min(least_idle.value_or(*idle), *idle);
  if (*idle - *least_idle < kGrowth) return;
  malloc_trim(0);
  least_idle = idle_bytes();
}
#else
void release_free_heap() {}
#endif

}  // namespace qvlmem::ops
