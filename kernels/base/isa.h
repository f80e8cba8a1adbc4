// SPDX-License-Identifier: Apache-2.0
// Which instruction set the CPU kernels use. A kernel's vector source (*_simd.cpp) is compiled once
// for each ISA into a namespace of that name; the entry in *_cpu.cpp picks one at run time.
#pragma once

namespace qvlmem {

enum class Isa : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

// The best ISA of this CPU, or the one that the environment variable QVLMEM_ISA names
// (portable, avx2, avx512). A name that is unknown or that this CPU lacks is ignored;
// isa_name(active_isa()) tells what runs. Read once.
Isa active_isa() noexcept;

bool isa_supported(Isa isa) noexcept;
const char* isa_name(Isa isa) noexcept;

// Switches at run time, for tests. False (and nothing changes) where the CPU lacks it.
bool force_isa(Isa isa) noexcept;

template <class Function>
Function* pick_isa(Function* portable, Function* avx2, Function* avx512) noexcept {
  switch (active_isa()) {
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx2:
      return avx2;
    case Isa::kPortable:
      break;
  }
  return portable;
}

}  // namespace qvlmem

// Declares the functions of a vector source in each of its namespaces.
#define QVLMEM_SIMD_DECLARE(...) \
  namespace portable {           \
  __VA_ARGS__                    \
  }                              \
  namespace avx2 {               \
  __VA_ARGS__                    \
  }                              \
  namespace avx512 {             \
  __VA_ARGS__                    \
  }

#define QVLMEM_SIMD_PICK(function) \
  ::qvlmem::pick_isa(portable::function, avx2::function, avx512::function)
