// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace qvlmem {

// From this many bytes on an output is written past the caches. A smaller one is likely to be read
// again soon, and had better stay there.
constexpr int64_t kStreamBytes = int64_t{1} << 20;

}  // namespace qvlmem
