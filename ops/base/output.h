// SPDX-License-Identifier: Apache-2.0
// Memory for what an operator returns.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qvlmem::ops {

constexpr uintptr_t kHugePage = uintptr_t{2} << 20;

// Asks for the whole huge pages in [begin, end) as such; returns where the last one ends, or begin
// where there is none.
uint8_t* ask_for_huge_pages(uint8_t* begin, uint8_t* end);

// at::empty. Of a CPU tensor of 2 MiB and more the whole huge pages are asked for as such, which
// the kernel heeds where huge pages are on request ("madvise" in
// /sys/kernel/mm/transparent_hugepage/enabled, the default of most distributions): a fresh output
// of 64 MiB then takes tens of page faults instead of thousands, and its streaming stores fewer
// walks of page tables.
at::Tensor empty_output(at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace qvlmem::ops
