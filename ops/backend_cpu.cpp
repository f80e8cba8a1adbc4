// SPDX-License-Identifier: Apache-2.0
#include "ops/backend.h"
#include "ops/base/check.h"

namespace qvlmem {

namespace ops {

at::Tensor to_host_cpu(const char*, const at::Tensor& x) { return x; }

}  // namespace ops

const Backend kCpuBackend{ops::to_host_cpu,
                          ops::quantize_cpu,
                          ops::dequantize_cpu,
                          ops::all_finite_cpu,
                          ops::to_fp16_cpu,
                          ops::from_fp16_cpu,
                          ops::measure_error_cpu,
                          ops::sparse_compact_cpu,
                          ops::sparse_expand_cpu,
                          ops::sparse_nonzero_cpu,
                          ops::sparse_coo_indices_cpu,
                          ops::svd_device_cpu,
                          ops::svd_reconstruct_cpu,
                          ops::lossless_encode_cpu,
                          ops::lossless_decode_cpu,
                          ops::encode_bounded_cpu,
                          ops::decode_bounded_cpu};

const Backend& backend_of(const char* op, const char* argument, const at::Tensor& x) {
  ops::check_device(op, argument, x);
#ifdef QVLMEM_WITH_CUDA
  if (x.is_cuda()) return kCudaBackend;
#endif
  return kCpuBackend;
}

}  // namespace qvlmem
