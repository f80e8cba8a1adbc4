// SPDX-License-Identifier: Apache-2.0
#include "ops/base/output.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace qvlmem::ops {
namespace {

// The flags of the mapping that holds `address`, as the kernel tells them.
std::string mapping_flags(uintptr_t address) {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool holds = false;
  while (std::getline(maps, line)) {
    unsigned long begin, end;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
      holds = begin <= address && address < end;
    } else if (holds && line.rfind("VmFlags:", 0) == 0) {
      return line + " ";
    }
  }
  return "";
}

TEST(OutputTest, LargeOnesAskForHugePages) {
  const at::Tensor y = empty_output({3, 4 << 20}, at::dtype(at::kFloat));
  EXPECT_EQ(y.sizes(), at::IntArrayRef({3, 4 << 20}));
  EXPECT_EQ(y.scalar_type(), at::kFloat);
  EXPECT_TRUE(y.is_contiguous());
  if (!std::filesystem::exists("/sys/kernel/mm/transparent_hugepage")) {
    GTEST_SKIP() << "this kernel has no transparent huge pages";
  }
  const uintptr_t middle =
      reinterpret_cast<uintptr_t>(y.const_data_ptr()) + static_cast<uintptr_t>(y.nbytes() / 2);
  const std::string flags = mapping_flags(middle);
  if (flags.empty()) GTEST_SKIP() << "this kernel tells no flags of mappings";
  EXPECT_NE(flags.find(" hg "), std::string::npos) << flags;
}

TEST(OutputTest, OfAnySize) {
  for (int64_t count : {0, 1, 1000, 2 << 20, (2 << 20) + 1, (6 << 20) - 1}) {
    at::Tensor y = empty_output({count}, at::dtype(at::kByte));
    ASSERT_EQ(y.numel(), count);
    y.fill_(7);
    EXPECT_EQ(y.sum().item<int64_t>(), 7 * count);
  }
}

}  // namespace
}  // namespace qvlmem::ops
