// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cub/block/block_scan.cuh>

#include "kernels/base/device.cuh"

namespace qvlmem {

// One thread block finds where units end that stand one after another, each from the next multiple
// of `alignment` on: unit u begins at or after ends[u] and ends at ends[u + 1]; ends[0] becomes
// `first`. *last becomes the last of them. sizes may be ends + 1.
template <class Size>
__global__ void __launch_bounds__(kBlockThreads)
    place_units(int64_t unit_count, int64_t first, int64_t alignment, const Size* sizes,
                int64_t* ends, int64_t* last) {
  using Scan = cub::BlockScan<int64_t, kBlockThreads>;
  __shared__ typename Scan::TempStorage storage;
  int64_t before = first;
  for (int64_t base = 0; base < unit_count; base += kBlockThreads) {
    const int64_t unit = base + threadIdx.x;
    const int64_t size = unit < unit_count ? static_cast<int64_t>(sizes[unit]) : 0;
    int64_t begin, total;
    Scan(storage).ExclusiveSum((size + alignment - 1) / alignment * alignment, begin, total);
    const int64_t end = before + begin + size;
    if (unit < unit_count) ends[unit + 1] = end;
    if (unit + 1 == unit_count) *last = end;
    before += total;
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  ends[0] = first;
  if (unit_count == 0) *last = first;
}

}  // namespace qvlmem
