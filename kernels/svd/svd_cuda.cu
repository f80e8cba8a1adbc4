// SPDX-License-Identifier: Apache-2.0
#include "kernels/svd/svd_cuda.h"

#include "kernels/base/device.cuh"
#include "kernels/svd/svd_math.h"

namespace qvlmem {
namespace {

// Partial sums: as many for an n whatever the GPU, so that they are rounded alike.
constexpr int64_t kMostBlocks = 1024;
constexpr int64_t kBlockElements = 16384;  // at least, but for the last

int64_t scan_blocks(int64_t n) {
  const int64_t blocks = ceil_div(n, kBlockElements);
  return blocks < 1 ? 1 : blocks > kMostBlocks ? kMostBlocks : blocks;
}

// Over the block, in thread 0.
__device__ inline SvdScan block_total(SvdScan scan) {
  constexpr int kWarps = kBlockThreads / kWarpLanes;
  __shared__ double sums[kWarps];
  __shared__ uint32_t magnitudes[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
#pragma unroll
  for (int step = kWarpLanes / 2; step > 0; step /= 2) {
    scan.sum_squares += __shfl_xor_sync(kAllLanes, scan.sum_squares, step);
  }
  scan.magnitude_bits = team_max<kWarpLanes>(scan.magnitude_bits);
  if (threadIdx.x % kWarpLanes == 0) {
    sums[warp] = scan.sum_squares;
    magnitudes[warp] = scan.magnitude_bits;
  }
  __syncthreads();
#pragma unroll
  for (int w = 1; w < kWarps; ++w) {
    scan.sum_squares += sums[w];
    scan.magnitude_bits = max(scan.magnitude_bits, magnitudes[w]);
  }
  return scan;
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    scan_kernel(const T* x, int64_t n, bool vectors, SvdScan* parts) {
  constexpr int V = kVector<T>;
  SvdScan scan;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kBlockThreads * V;
  for (int64_t at = (static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x) * V; at < n;
       at += step) {
    float held[V];
    load_vector(x + at, static_cast<int>(min(static_cast<int64_t>(V), n - at)), vectors, held);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const double value = held[k];
      scan.sum_squares = fma(value, value, scan.sum_squares);
      scan.magnitude_bits = max(scan.magnitude_bits, float_to_bits(held[k]) & 0x7fffffffu);
    }
  }
  __syncwarp();
  scan = block_total(scan);
  if (threadIdx.x == 0) parts[blockIdx.x] = scan;
}

__global__ void __launch_bounds__(kBlockThreads)
    total_kernel(const SvdScan* parts, int count, SvdScan* total) {
  SvdScan scan;
  for (int i = threadIdx.x; i < count; i += kBlockThreads) {
    scan.sum_squares += parts[i].sum_squares;
    scan.magnitude_bits = max(scan.magnitude_bits, parts[i].magnitude_bits);
  }
  scan = block_total(scan);
  if (threadIdx.x == 0) *total = scan;
}

// Elements that a thread takes where it reads or writes float32.
constexpr int kRun = kVector<float>;

// A thread writes four signs, which are of one word.
__global__ void __launch_bounds__(kBlockThreads)
    signs_kernel(uint64_t seed, uint16_t sequence, int64_t n, float* signs) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x) * kRun;
  if (i >= n) return;
  const PhiloxBlock block = svd_sign_block(seed, sequence, i / kSvdBlockSigns);
  const int word = static_cast<int>(i % kSvdBlockSigns) / kSvdSignBits;
  const int bit = static_cast<int>(i % kSvdSignBits);
  // By comparing: an index that is not known would put the block into local memory.
  const uint32_t low = word == 0 ? block.word[0] : block.word[1];
  const uint32_t high = word == 2 ? block.word[2] : block.word[3];
  float out[kRun];
#pragma unroll
  for (int k = 0; k < kRun; ++k) out[k] = svd_sign(word < 2 ? low : high, bit + k);
  store_elements<kRun>(out, static_cast<int>(min(static_cast<int64_t>(kRun), n - i)), true,
                       signs + i);
}

__device__ inline SvdProductScale scale_of(const SvdFactorScans& scans) {
  return svd_product_scale(scans.u->magnitude_bits, scans.v->magnitude_bits, scans.rank);
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    scale_factor_kernel(SvdFactorScans scans, bool is_u, const T* factor, int64_t n, bool words,
                        float* out) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x) * kRun;
  if (i >= n) return;
  const SvdProductScale scale = scale_of(scans);
  const float power = svd_power_of_two(-(is_u ? scale.u_exponent : scale.v_exponent));
  const int length = static_cast<int>(min(static_cast<int64_t>(kRun), n - i));
  T held[kRun];
  load_elements<kRun>(factor + i, length, words, held);
  float scaled[kRun];
#pragma unroll
  for (int k = 0; k < kRun; ++k) scaled[k] = to_float(held[k]) * power;
  store_elements<kRun>(scaled, length, true, out + i);
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    finish_product_kernel(SvdFactorScans scans, const float* product, int64_t n, bool words,
                          bool in_place, T* y) {
  const SvdProductScale scale = scale_of(scans);
  // What float32 holds as it is has come out right.
  if (in_place && (!scale.is_finite || (scale.u_exponent == 0 && scale.v_exponent == 0))) return;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x) * kRun;
  if (i >= n) return;
  const int length = static_cast<int>(min(static_cast<int64_t>(kRun), n - i));
  float held[kRun];
  load_elements<kRun>(product + i, length, words, held);
  T out[kRun];
#pragma unroll
  for (int k = 0; k < kRun; ++k) out[k] = svd_finish<T>(held[k], scale);
  store_elements<kRun>(out, length, words, y + i);
}

}  // namespace

int64_t svd_scan_workspace_bytes(int64_t n) noexcept {
  return scan_blocks(n) * static_cast<int64_t>(sizeof(SvdScan));
}

cudaError_t svd_scan_cuda(const void* x, DType dtype, int64_t n, SvdScan* scan, void* workspace,
                          cudaStream_t stream) noexcept {
  const int64_t blocks = scan_blocks(n);
  SvdScan* const parts = static_cast<SvdScan*>(workspace);
  with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    scan_kernel<T><<<grid_of(blocks), kBlockThreads, 0, stream>>>(static_cast<const T*>(x), n,
                                                                  is_aligned(x, 16), parts);
  });
  total_kernel<<<1, kBlockThreads, 0, stream>>>(parts, static_cast<int>(blocks), scan);
  return cudaGetLastError();
}

cudaError_t svd_random_signs_cuda(uint64_t seed, uint16_t sequence, int64_t n, float* signs,
                                  cudaStream_t stream) noexcept {
  if (n == 0) return cudaSuccess;
  signs_kernel<<<blocks_for(ceil_div(n, kRun)), kBlockThreads, 0, stream>>>(seed, sequence, n,
                                                                            signs);
  return cudaGetLastError();
}

cudaError_t svd_scale_factor_cuda(const SvdFactorScans& scans, bool is_u, const void* factor,
                                  DType dtype, int64_t n, float* out,
                                  cudaStream_t stream) noexcept {
  if (n == 0) return cudaSuccess;
  return with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    scale_factor_kernel<T><<<blocks_for(ceil_div(n, kRun)), kBlockThreads, 0, stream>>>(
        scans, is_u, static_cast<const T*>(factor), n, is_aligned(factor, kRun * sizeof(T)), out);
    return cudaGetLastError();
  });
}

cudaError_t svd_finish_product_cuda(const SvdFactorScans& scans, const float* product, int64_t n,
                                    void* y, DType dtype, cudaStream_t stream) noexcept {
  if (n == 0) return cudaSuccess;
  return with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    finish_product_kernel<T><<<blocks_for(ceil_div(n, kRun)), kBlockThreads, 0, stream>>>(
        scans, product, n, is_aligned(product, 16) && is_aligned(y, kRun * sizeof(T)), product == y,
        static_cast<T*>(y));
    return cudaGetLastError();
  });
}

}  // namespace qvlmem
