// SPDX-License-Identifier: Apache-2.0
#include "ops/base/output.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "ops/base/reserved_bytes.h"

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

// What units before tell of those to come is a guess, and the memory behind is somebody else's.
TEST(OutputTest, NothingIsAskedForBeyondWhatIsReserved) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  ReservedBytes first(kBytes), second(kBytes);
  ReservedBytes& low = first.data() < second.data() ? first : second;
  ReservedBytes& high = first.data() < second.data() ? second : first;
  low.expect(high.data() + kBytes - low.data());
  const std::string flags = mapping_flags(reinterpret_cast<uintptr_t>(high.data() + kBytes / 2));
  EXPECT_EQ(flags.find(" hg "), std::string::npos) << flags;
  // The header of many units is no part of the first.
  constexpr int64_t kUnits = int64_t{1} << 16, kHeader = 8 * kUnits, kUnit = int64_t{1} << 17;
  EXPECT_EQ(expected_end(kHeader, kHeader, 0, kUnits), kHeader);
  EXPECT_LE(expected_end(kHeader, kHeader + kUnit, 1, kUnits), kHeader + kUnits * kUnit);
  EXPECT_EQ(expected_end(0, 2400, 3, 5), 2400 + 1400);
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
