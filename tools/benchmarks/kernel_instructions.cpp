// SPDX-License-Identifier: Apache-2.0
// What tools/instructions runs under callgrind: one kernel, once.
#include <hwy/highway.h>

#include <cinttypes>
#include <cstdio>
#include <exception>
#include <functional>
#include <string_view>

#include "kernels/base/isa.h"
#include "tools/benchmarks/kernel_cases.h"

namespace {

constexpr const char* kUsage =
    R"(usage: kernel_instructions --list
       kernel_instructions KERNEL ISA

Runs a kernel twice on a fixed input, the second time in the function `measured_run`.
--list prints the toolchain, the elements of an input, and the kernels, one a line.

Exit codes: 0 done, 1 the kernel failed or this CPU lacks the ISA, 2 wrong usage.
)";

void list() {
  std::printf("%s, Highway %d.%d.%d\n%" PRId64 "\n", QVLMEM_COMPILER, HWY_MAJOR, HWY_MINOR,
              HWY_PATCH, qvlmem::kernel_case_elements());
  for (const qvlmem::KernelCase& kernel : qvlmem::kernel_cases()) std::puts(kernel.name);
}

// nullptr where there is none of that name.
const qvlmem::KernelCase* find_case(std::string_view name) {
  for (const qvlmem::KernelCase& kernel : qvlmem::kernel_cases()) {
    if (name == kernel.name) return &kernel;
  }
  return nullptr;
}

bool switch_isa(std::string_view name) {
  for (qvlmem::Isa isa : {qvlmem::Isa::kPortable, qvlmem::Isa::kAvx2, qvlmem::Isa::kAvx512}) {
    if (name == qvlmem::isa_name(isa)) return qvlmem::force_isa(isa);
  }
  return false;
}

}  // namespace

// callgrind counts from where this is entered to where it is left. Not inlined, and with a name
// that no compiler mangles, for it to be found.
extern "C" __attribute__((noinline)) void measured_run(const std::function<void()>& run) {
  run();
  asm volatile("" ::: "memory");  // or a jump in place of the call would not come back here
}

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--list") {
    list();
    return 0;
  }
  const qvlmem::KernelCase* kernel = argc == 3 ? find_case(argv[1]) : nullptr;
  if (kernel == nullptr) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  if (!switch_isa(argv[2])) {
    std::fprintf(stderr, "kernel_instructions: this CPU has no ISA %s\n", argv[2]);
    return 1;
  }
  try {
    const std::function<void()> run = kernel->prepare();
    run();  // so that the dynamic linker has resolved what is called
    measured_run(run);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kernel_instructions: %s: %s\n", kernel->name, error.what());
    return 1;
  }
  return 0;
}
