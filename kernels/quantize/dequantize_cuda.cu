// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantize/quantize_device.cuh"

namespace qvlmem {
namespace {

// Chunks of a thread, a block's width apart: so many loads are on their way at once.
constexpr int kChunks = 4;

template <class T, int kBits>
__global__ void __launch_bounds__(kBlockThreads)
    dequantize_chunks(ChunkShape shape, const uint8_t* q, const float* scale,
                      const int32_t* zero_point, T* y) {
  constexpr int V = kVector<T>;
  const bool symmetric = zero_point == nullptr;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int64_t block = static_cast<int64_t>(blockIdx.x) * kChunks + c;
    ChunkGroups groups(shape, block * kBlockThreads + threadIdx.x);
    if (!groups.live()) return;
    int32_t code[V];
    load_codes<kBits, V>(q + groups.row() * shape.row_bytes + groups.col() * kBits / 8,
                         groups.length(), shape.vectors, symmetric, code);
    T value[V];
    float step = scale[groups.index()];
    int32_t zero = symmetric ? 0 : zero_point[groups.index()];
    if (groups.in_one()) {
#pragma unroll
      for (int k = 0; k < V; ++k) {
        value[k] = from_float_saturating<T>(dequantize_value(code[k], step, zero));
      }
    } else {
#pragma unroll
      for (int k = 0; k < V; ++k) {
        if (groups.enters(k)) {
          step = scale[groups.index()];
          zero = symmetric ? 0 : zero_point[groups.index()];
        }
        value[k] = from_float_saturating<T>(dequantize_value(code[k], step, zero));
      }
    }
    store_elements<V>(value, groups.length(), shape.vectors,
                      y + groups.row() * shape.cols + groups.col());
  }
}

}  // namespace

cudaError_t dequantize_cuda(const QuantizePlan& plan, const void* q, const float* scale,
                            const int32_t* zero_point, void* y, DType dtype,
                            cudaStream_t stream) noexcept {
  if (plan.rows == 0 || plan.cols == 0) return cudaSuccess;
  return with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    const ChunkShape shape = chunk_shape(plan, y, q, kVector<T>);
    const auto decode = [&](auto kernel) {
      kernel<<<blocks_for(ceil_div(shape.count, kChunks)), kBlockThreads, 0, stream>>>(
          shape, static_cast<const uint8_t*>(q), scale, zero_point, static_cast<T*>(y));
      return cudaGetLastError();
    };
    return plan.bits == 8 ? decode(dequantize_chunks<T, 8>) : decode(dequantize_chunks<T, 4>);
  });
}

}  // namespace qvlmem
