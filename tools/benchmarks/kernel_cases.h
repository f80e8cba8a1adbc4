// SPDX-License-Identifier: Apache-2.0
// The kernels on inputs that are the same on every machine, for counting their instructions.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace qvlmem {

struct KernelCase {
  const char* name;
  // Makes the input and room for the output; what it returns runs the kernel once, as often as it
  // is called, and throws std::runtime_error where the kernel reports an error.
  std::function<std::function<void()>()> prepare;
};

const std::vector<KernelCase>& kernel_cases();

// Elements of each case's input.
int64_t kernel_case_elements();

}  // namespace qvlmem
