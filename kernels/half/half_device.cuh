// SPDX-License-Identifier: Apache-2.0
// What encoding and decoding float16 share on CUDA: a flat tensor in tiles.
#pragma once

#include "kernels/base/device.cuh"
#include "kernels/half/half_cuda.h"
#include "kernels/half/half_math.h"

namespace qvlmem {

// Elements of a thread, in vectors that lie a block's width apart: so many loads are on their way
// at once.
constexpr int kHalfItems = 16;

// The tensor cut into tiles of kHalfItems for each thread of a block.
struct TileShape {
  int64_t numel, tiles;
  bool vectors;
};

// x and y: what is read and written, V elements of so many bytes at a time.
inline TileShape tile_shape(int64_t numel, int V, const void* x, int64_t x_bytes, const void* y,
                            int64_t y_bytes) {
  return {numel, ceil_div(numel, int64_t{kHalfItems} * kBlockThreads),
          is_aligned(x, V * x_bytes) && is_aligned(y, V * y_bytes)};
}

// Of this thread's vector c of a tile: its first element, and how many are in the tensor.
template <int V>
struct TileVector {
  int64_t first;
  int n;
  __device__ TileVector(const TileShape& shape, int64_t tile, int c)
      : first(((tile * (kHalfItems / V) + c) * kBlockThreads + threadIdx.x) * V),
        n(static_cast<int>(max(min(shape.numel - first, int64_t{V}), int64_t{0}))) {}
};

}  // namespace qvlmem
