// SPDX-License-Identifier: Apache-2.0
#include "ops/base/output.h"

#include <ATen/ops/empty.h>
#include <sys/mman.h>

#include <cstdint>

namespace qvlmem::ops {

at::Tensor empty_output(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor out = at::empty(sizes, options);
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  if (out.device().is_cpu() && out.nbytes() >= kHugePage) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(out.mutable_data_ptr());
    const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
    const uintptr_t end = (address + out.nbytes()) / kHugePage * kHugePage;
    // Whether the kernel can is its own affair.
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
  return out;
}

}  // namespace qvlmem::ops
