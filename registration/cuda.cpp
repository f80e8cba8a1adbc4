// SPDX-License-Identifier: Apache-2.0
#include "ops/half_ops.h"
#include "ops/lossless_ops.h"
#include "ops/profile_ops.h"
#include "ops/quantize_ops.h"
#include "ops/sparse_ops.h"
#include "ops/svd_ops.h"
#include "registration/tables.h"

namespace qvlmem::registration {

void register_cuda(torch::Library& m) {
  m.impl("quantize", TORCH_FN(ops::quantize_cuda));
  m.impl("dequantize", TORCH_FN(ops::dequantize_cuda));
  m.impl("lossless_encode", TORCH_FN(ops::lossless_encode_cuda));
  m.impl("lossless_decode", TORCH_FN(ops::lossless_decode_cuda));
  m.impl("to_fp16", TORCH_FN(ops::to_fp16_cuda));
  m.impl("from_fp16", TORCH_FN(ops::from_fp16_cuda));
  m.impl("profile_values", TORCH_FN(ops::profile_values_cuda));
  m.impl("sparsify", TORCH_FN(ops::sparsify_cuda));
  m.impl("densify", TORCH_FN(ops::densify_cuda));
  m.impl("svd", TORCH_FN(ops::svd));
  m.impl("svd_reconstruct", TORCH_FN(ops::svd_reconstruct_cuda));
}

}  // namespace qvlmem::registration
