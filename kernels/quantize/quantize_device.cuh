// SPDX-License-Identifier: Apache-2.0
// What encoding and decoding share on CUDA: codes in registers and in memory, and rows in chunks
// that a thread each takes, with the groups that a chunk runs through.
#pragma once

#include <type_traits>

#include "kernels/base/device.cuh"
#include "kernels/quantize/quantize_cuda.h"

namespace qvlmem {

// Packs the first n of V codes. words: `to` is aligned to the bytes of all V. With 4 bits a last
// code without a partner has the high nibble 0.
template <int kBits, int V>
__device__ inline void store_codes(const int32_t* code, int n, bool words, uint8_t* to) {
  constexpr int kBytes = V * kBits / 8;
  uint8_t bytes[kBytes];
#pragma unroll
  for (int i = 0; i < kBytes; ++i) {
    if (kBits == 8) {
      bytes[i] = static_cast<uint8_t>(code[i]);
    } else {
      const int high = 2 * i + 1 < n ? (code[2 * i + 1] & 15) << 4 : 0;
      bytes[i] = static_cast<uint8_t>((code[2 * i] & 15) | high);
    }
  }
  store_elements<kBytes>(bytes, kBits == 8 ? n : (n + 1) / 2, words, to);
}

template <int kBits, int V>
__device__ inline void load_codes(const uint8_t* from, int n, bool words, bool sign_extend,
                                  int32_t* code) {
  constexpr int kBytes = V * kBits / 8;
  uint8_t bytes[kBytes];
  load_elements<kBytes>(from, kBits == 8 ? n : (n + 1) / 2, words, bytes);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (kBits == 8) {
      code[i] = static_cast<int8_t>(bytes[i]);
    } else {
      const int nibble = i % 2 == 0 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4;
      code[i] = sign_extend ? (nibble ^ 8) - 8 : nibble;
    }
  }
}

// Rows cut into chunks of V columns.
struct ChunkShape {
  int64_t count, cols, row_bytes;
  int64_t group;  // columns of a group
  int64_t groups_per_row;
  Divisor chunks_per_row, by_group;
  int vector;
  bool per_tensor, vectors;
};

// REQUIRES: neither rows nor cols is 0.
inline ChunkShape chunk_shape(const QuantizePlan& plan, const void* values, const void* q,
                              int vector) {
  // Where all rows begin at a multiple of a chunk: a single one does, whatever its length.
  const bool rows_fit = plan.rows == 1 || plan.cols % vector == 0;
  const int64_t chunks_per_row = ceil_div(plan.cols, vector);
  const int64_t count = plan.rows * chunks_per_row;
  return {count,
          plan.cols,
          plan.row_bytes,
          plan.group,
          plan.groups_per_row,
          Divisor(chunks_per_row, count),
          Divisor(plan.group, plan.cols),
          vector,
          plan.per_tensor,
          is_aligned(values, 16) && is_aligned(q, vector) && rows_fit};
}

__device__ inline int64_t chunk_index() {
  return static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x;
}

// The groups that the columns of one chunk lie in, from its first column to its last.
class ChunkGroups {
 public:
  __device__ ChunkGroups(const ChunkShape& shape, int64_t chunk)
      : shape_(shape), live_(chunk < shape.count) {
    if (!live_) return;
    row_ = shape.chunks_per_row.split(&chunk);
    col_ = chunk * shape.vector;
    length_ = static_cast<int>(min(static_cast<int64_t>(shape.vector), shape.cols - col_));
    if (shape.per_tensor) return;
    const int64_t in_row = shape.by_group.quotient(col_);
    index_ = row_ * shape.groups_per_row + in_row;
    left_ = (in_row + 1) * shape.group - col_;
  }

  __device__ bool live() const { return live_; }
  __device__ int64_t row() const { return row_; }
  __device__ int64_t col() const { return col_; }
  __device__ int length() const { return length_; }
  __device__ int64_t index() const { return index_; }

  // Whether all its columns are of one group, that of index(): mostly.
  __device__ bool in_one() const { return shape_.per_tensor || length_ <= left_; }

  // Whether a group begins at column k of the chunk, for k = 0, 1, ... in turn: index() is then
  // its.
  __device__ bool enters(int k) {
    if (k == 0) return true;
    if (shape_.per_tensor || k >= length_ || k < left_) return false;
    left_ += shape_.group;
    ++index_;
    return true;
  }

 private:
  const ChunkShape& shape_;
  bool live_;
  int64_t row_ = 0, col_ = 0, index_ = 0, left_ = 0;
  int length_ = 0;
};

}  // namespace qvlmem
