// SPDX-License-Identifier: Apache-2.0
// Memory for what an operator returns.
#pragma once

#include <ATen/core/Tensor.h>

namespace qvlmem::ops {

// at::empty. Of a CPU tensor of 2 MiB and more the whole huge pages are asked for as such, which
// the kernel heeds where huge pages are on request ("madvise" in
// /sys/kernel/mm/transparent_hugepage/enabled, the default of most distributions): a fresh output
// of 64 MiB then takes tens of page faults instead of thousands, and its streaming stores fewer
// walks of page tables.
at::Tensor empty_output(at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace qvlmem::ops
