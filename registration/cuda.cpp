// SPDX-License-Identifier: Apache-2.0
#include "ops/lossless_ops.h"
#include "ops/quantize_ops.h"
#include "registration/tables.h"

namespace qvlmem::registration {

void register_cuda(torch::Library& m) {
  m.impl("quantize", TORCH_FN(ops::quantize_cuda));
  m.impl("dequantize", TORCH_FN(ops::dequantize_cuda));
  m.impl("lossless_encode", TORCH_FN(ops::lossless_encode_cuda));
  m.impl("lossless_decode", TORCH_FN(ops::lossless_decode_cuda));
}

}  // namespace qvlmem::registration
