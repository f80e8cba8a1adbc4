// SPDX-License-Identifier: Apache-2.0
#include "ops/half_ops.h"
#include "ops/lossless_ops.h"
#include "ops/profile_ops.h"
#include "ops/quantize_ops.h"
#include "ops/sparse_ops.h"
#include "ops/svd_ops.h"
#include "registration/tables.h"

namespace qvlmem::registration {

void register_cpu(torch::Library& m) {
  m.impl("quantize", TORCH_FN(ops::quantize_cpu));
  m.impl("dequantize", TORCH_FN(ops::dequantize_cpu));
  m.impl("lossless_encode", TORCH_FN(ops::lossless_encode_cpu));
  m.impl("lossless_decode", TORCH_FN(ops::lossless_decode_cpu));
  m.impl("to_fp16", TORCH_FN(ops::to_fp16_cpu));
  m.impl("from_fp16", TORCH_FN(ops::from_fp16_cpu));
  m.impl("profile_values", TORCH_FN(ops::profile_values_cpu));
  m.impl("sparsify", TORCH_FN(ops::sparsify_cpu));
  m.impl("densify", TORCH_FN(ops::densify_cpu));
  m.impl("svd", TORCH_FN(ops::svd));
  m.impl("svd_reconstruct", TORCH_FN(ops::svd_reconstruct_cpu));
}

}  // namespace qvlmem::registration
