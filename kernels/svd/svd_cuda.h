// SPDX-License-Identifier: Apache-2.0
// svd's own passes on CUDA, around the products that cuBLAS does. The results do not depend on the
// GPU; sums are taken in another order than on the CPU.
#pragma once

#include "kernels/base/cuda.h"
#include "kernels/svd/svd.h"

namespace qvlmem {

// Bytes of device memory, aligned to 16, that svd_scan_cuda needs.
int64_t svd_scan_workspace_bytes(int64_t n) noexcept;

// *scan, in device memory, is that of n elements at x. REQUIRES: is_lossy_dtype(dtype).
cudaError_t svd_scan_cuda(const void* x, DType dtype, int64_t n, SvdScan* scan, void* workspace,
                          cudaStream_t stream) noexcept;

// signs[i], i in [0, n): those of svd_random_signs. REQUIRES: n < 2^47; signs aligned to 16.
cudaError_t svd_random_signs_cuda(uint64_t seed, uint16_t sequence, int64_t n, float* signs,
                                  cudaStream_t stream) noexcept;

// The scans of two factors, in device memory, and their inner dimension.
struct SvdFactorScans {
  const SvdScan* u;
  const SvdScan* v;
  int64_t rank;
};

// n elements of a factor (u where is_u, else v) as float32, scaled so that float32 holds every
// partial sum of the product. out aligned to 32.
cudaError_t svd_scale_factor_cuda(const SvdFactorScans& scans, bool is_u, const void* factor,
                                  DType dtype, int64_t n, float* out, cudaStream_t stream) noexcept;

// n elements of u v from the product of scaled factors: of type dtype, saturating where the factors
// are finite. y may be `product` itself, where dtype is float32.
cudaError_t svd_finish_product_cuda(const SvdFactorScans& scans, const float* product, int64_t n,
                                    void* y, DType dtype, cudaStream_t stream) noexcept;

}  // namespace qvlmem
