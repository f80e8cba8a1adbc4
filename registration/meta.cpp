// SPDX-License-Identifier: Apache-2.0
#include "ops/half_ops.h"
#include "ops/lossless_ops.h"
#include "ops/profile_ops.h"
#include "ops/quantize_ops.h"
#include "ops/sparse_ops.h"
#include "ops/svd_ops.h"
#include "registration/tables.h"

namespace qvlmem::registration {

void register_meta(torch::Library& m) {
  m.impl("quantize", TORCH_FN(ops::quantize_meta));
  m.impl("dequantize", TORCH_FN(ops::dequantize_meta));
  m.impl("lossless_decode", TORCH_FN(ops::lossless_decode_meta));
  m.impl("to_fp16", TORCH_FN(ops::to_fp16_meta));
  m.impl("from_fp16", TORCH_FN(ops::from_fp16_meta));
  m.impl("profile_values", TORCH_FN(ops::profile_values_meta));
  m.impl("densify", TORCH_FN(ops::densify_meta));
  m.impl("svd_reconstruct", TORCH_FN(ops::svd_reconstruct_meta));
}

}  // namespace qvlmem::registration
