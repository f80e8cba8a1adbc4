// SPDX-License-Identifier: Apache-2.0
// Runs a test body under each ISA that this CPU has, and puts the first one back.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "kernels/base/isa.h"

namespace qvlmem {

inline std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (isa_supported(isa)) isas.push_back(isa);
  }
  return isas;
}

template <class Body>
void for_each_isa(Body body) {
  const Isa before = active_isa();
  for (Isa isa : supported_isas()) {
    SCOPED_TRACE(isa_name(isa));
    ASSERT_TRUE(force_isa(isa));
    ASSERT_EQ(active_isa(), isa);
    body(isa);
  }
  force_isa(before);
}

}  // namespace qvlmem
