// SPDX-License-Identifier: Apache-2.0
// The ops of one device, for those that call them without the dispatcher (the codec table, the
// selector): one table a back end.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/bounded_ops.h"
#include "ops/error_ops.h"
#include "ops/half_ops.h"
#include "ops/lossless_ops.h"
#include "ops/quantize_ops.h"
#include "ops/sparse_compact.h"
#include "ops/svd/svd_device.h"
#include "ops/svd_ops.h"

namespace qvlmem {

namespace ops {
// x in host memory: x itself where it is. It waits, and so RuntimeError, in the name of `op`, while
// a graph is captured.
at::Tensor to_host_cpu(const char* op, const at::Tensor& x);
at::Tensor to_host_cuda(const char* op, const at::Tensor& x);
}  // namespace ops

struct Backend {
  decltype(&ops::to_host_cpu) to_host;
  decltype(&ops::quantize_cpu) quantize;
  decltype(&ops::dequantize_cpu) dequantize;
  decltype(&ops::all_finite_cpu) all_finite;
  decltype(&ops::to_fp16_cpu) to_fp16;
  decltype(&ops::from_fp16_cpu) from_fp16;
  decltype(&ops::measure_error_cpu) measure_error;
  decltype(&ops::sparse_compact_cpu) sparse_compact;
  decltype(&ops::sparse_expand_cpu) sparse_expand;
  decltype(&ops::sparse_nonzero_cpu) sparse_nonzero;
  decltype(&ops::sparse_coo_indices_cpu) sparse_coo_indices;
  decltype(&ops::svd_device_cpu) svd_device;
  decltype(&ops::svd_reconstruct_cpu) svd_reconstruct;
  decltype(&ops::lossless_encode_cpu) lossless_encode;
  decltype(&ops::lossless_decode_cpu) lossless_decode;
  decltype(&ops::encode_bounded_cpu) encode_bounded;
  decltype(&ops::decode_bounded_cpu) decode_bounded;
};

extern const Backend kCpuBackend;
extern const Backend kCudaBackend;  // in a build with CUDA

// That of x's device. NotImplementedError where the library has none: `op` and `argument` name x.
const Backend& backend_of(const char* op, const char* argument, const at::Tensor& x);

}  // namespace qvlmem
