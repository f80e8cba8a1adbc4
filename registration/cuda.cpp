// SPDX-License-Identifier: Apache-2.0
#include "ops/quantize_ops.h"
#include "registration/tables.h"

namespace qvlmem::registration {

void register_cuda(torch::Library& m) {
  m.impl("quantize", TORCH_FN(ops::quantize_cuda));
  m.impl("dequantize", TORCH_FN(ops::dequantize_cuda));
}

}  // namespace qvlmem::registration
