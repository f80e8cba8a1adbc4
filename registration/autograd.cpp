// SPDX-License-Identifier: Apache-2.0
// No codec is differentiable: in backward they raise, rather than lose a gradient silently.
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>

#include "registration/tables.h"

namespace qvlmem::registration {

void register_autograd(torch::Library& m) {
  for (const char* op : kTensorOps) {
    m.impl(op, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace qvlmem::registration
