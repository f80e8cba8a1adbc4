// SPDX-License-Identifier: Apache-2.0
#include "ops/base/output.h"

#include <ATen/ops/empty.h>
#include <sys/mman.h>

namespace qvlmem::ops {

uint8_t* ask_for_huge_pages(uint8_t* begin, uint8_t* end) {
  const auto from = (reinterpret_cast<uintptr_t>(begin) + kHugePage - 1) / kHugePage * kHugePage;
  const auto to = reinterpret_cast<uintptr_t>(end) / kHugePage * kHugePage;
  if (from >= to) return begin;
#if defined(MADV_HUGEPAGE)
  // Whether the kernel can is its own affair.
  madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#endif
  return reinterpret_cast<uint8_t*>(to);
}

at::Tensor empty_output(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor out = at::empty(sizes, options);
  if (out.device().is_cpu() && out.nbytes() >= kHugePage) {
    auto* const data = static_cast<uint8_t*>(out.mutable_data_ptr());
    ask_for_huge_pages(data, data + out.nbytes());
  }
  return out;
}

}  // namespace qvlmem::ops
