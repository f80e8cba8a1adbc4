// SPDX-License-Identifier: Apache-2.0
#include "ops/backend.h"

#include <c10/cuda/CUDAGuard.h>

#include "kernels/base/cuda.h"
#include "ops/base/device_flag.h"

namespace qvlmem {

namespace ops {

at::Tensor to_host_cuda(const char* op, const at::Tensor& x) {
  const c10::cuda::CUDAGuard guard(x.device());
  check_not_capturing(op);
  return x.cpu();
}

}  // namespace ops

const Backend kCudaBackend{ops::to_host_cuda,
                           ops::quantize_cuda,
                           ops::dequantize_cuda,
                           ops::all_finite_cuda,
                           ops::to_fp16_cuda,
                           ops::from_fp16_cuda,
                           ops::measure_error_cuda,
                           ops::sparse_compact_cuda,
                           ops::sparse_expand_cuda,
                           ops::sparse_nonzero_cuda,
                           ops::sparse_coo_indices_cuda,
                           ops::svd_device_cuda,
                           ops::svd_reconstruct_cuda,
                           ops::lossless_encode_cuda,
                           ops::lossless_decode_cuda,
                           ops::encode_bounded_cuda,
                           ops::decode_bounded_cuda};

}  // namespace qvlmem
