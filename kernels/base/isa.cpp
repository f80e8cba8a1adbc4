// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace qvlmem {
namespace {

constexpr Isa kAllIsas[] = {Isa::kAvx512, Isa::kAvx2, Isa::kPortable};

Isa initial_isa() noexcept {
  const char* name = std::getenv("QVLMEM_ISA");
  if (name != nullptr) {
    for (Isa isa : kAllIsas) {
      if (std::strcmp(name, isa_name(isa)) == 0 && isa_supported(isa)) return isa;
    }
  }
  for (Isa isa : kAllIsas) {
    if (isa_supported(isa)) return isa;
  }
  return Isa::kPortable;
}

std::atomic<Isa>& isa_state() noexcept {
  static std::atomic<Isa> state{initial_isa()};
  return state;
}

}  // namespace

Isa active_isa() noexcept { return isa_state().load(std::memory_order_relaxed); }

bool isa_supported(Isa isa) noexcept {
  switch (isa) {
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512cd") && isa_supported(Isa::kAvx2);
    case Isa::kAvx2:
      // Haswell's set: every CPU with AVX2 that this library targets has F16C too, which gcc 12
      // cannot ask for by name.
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("pclmul");
    case Isa::kPortable:
      return true;
  }
  return false;
}

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kPortable:
      break;
  }
  return "portable";
}

bool force_isa(Isa isa) noexcept {
  if (!isa_supported(isa)) return false;
  isa_state().store(isa, std::memory_order_relaxed);
  return true;
}

}  // namespace qvlmem
