// SPDX-License-Identifier: Apache-2.0
// No codec is differentiable: in backward they raise, rather than lose a gradient silently.
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>

#include "registration/tables.h"

namespace qvlmem::registration {

void register_autograd(torch::Library& m) {
  constexpr const char* kOps[] = {
      "quantize",         //
      "dequantize",       //
      "to_fp16",          //
      "from_fp16",        //
      "svd",              //
      "svd_reconstruct",  //
      "sparsify",         //
      "densify",          //
      "lossless_encode",  //
      "lossless_decode",  //
      "profile_values",   //
  };
  for (const char* op : kOps) {
    m.impl(op, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace qvlmem::registration
