// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "kernels/coding/int_pack_simd.h"

namespace qvlmem {
namespace {

struct Packed {
  std::vector<uint8_t> headers, payload;
  bool operator==(const Packed& other) const {
    return headers == other.headers && payload == other.payload;
  }
};

Packed pack(const std::vector<int32_t>& values) {
  const size_t blocks = values.size() / kIntPackBlock;
  Packed p;
  p.headers.resize(blocks);
  const size_t bytes = QVLMEM_SIMD_PICK(int_pack_measure)(values.data(), blocks, p.headers.data());
  p.payload.assign(bytes, 0xee);
  EXPECT_EQ(
      QVLMEM_SIMD_PICK(int_pack)(values.data(), p.headers.data(), blocks, p.payload.data(), bytes),
      bytes);
  EXPECT_EQ(QVLMEM_SIMD_PICK(int_unpack_measure)(p.headers.data(), blocks), bytes);
  return p;
}

std::vector<int32_t> unpack(const Packed& p) {
  std::vector<int32_t> values(p.headers.size() * kIntPackBlock, 77);
  // A copy of the exact size, so that a sanitizer sees what reads beyond it.
  const std::vector<uint8_t> payload(p.payload);
  QVLMEM_SIMD_PICK(int_unpack)
  (p.headers.data(), p.headers.size(), payload.data(), payload.size(), values.data());
  return values;
}

// Blocks of every width with ranges around zero, above it, below it and far from it.
std::vector<int32_t> blocks_of_every_kind() {
  std::mt19937 random(3);
  std::vector<int32_t> values;
  const auto add = [&](int64_t low, int64_t high) {
    std::uniform_int_distribution<int64_t> uniform(low, high);
    for (size_t i = 0; i < kIntPackBlock; ++i) {
      const int64_t v = i == 5 ? low : (i == 30 ? high : uniform(random));
      values.push_back(static_cast<int32_t>(v));
    }
  };
  for (int width = 0; width <= 32; ++width) {
    const int64_t span = (int64_t{1} << width) - 1, most = INT32_MAX, least = INT32_MIN;
    add(-((span + 1) / 2), span / 2);
    if (span <= most) {
      add(0, span);
      add(-span, 0);
      add(most - span, most);
      add(least, least + span);
      if (span < most / 2) add(1000000000, 1000000000 + span);
    }
  }
  return values;
}

TEST(IntPackTest, EveryWidthAndKindComesBackAlikeOnEveryIsa) {
  const auto values = blocks_of_every_kind();
  Packed reference;
  for_each_isa([&](Isa isa) {
    const Packed p = pack(values);
    if (isa == Isa::kPortable) reference = p;
    EXPECT_TRUE(p == reference);
    EXPECT_EQ(unpack(p), values);
  });
}

TEST(IntPackTest, TheLayoutIsWhatTheHeaderSays) {
  std::vector<int32_t> values(3 * kIntPackBlock, 0);
  for (int32_t i = 0; i < 32; ++i) {
    values[i] = i % 3;                 // 0..2
    values[32 + i] = i - 16;           // -16..15
    values[64 + i] = 1000 + (i == 9);  // 1000, one 1001
  }
  const Packed p = pack(values);
  EXPECT_EQ(p.headers, (std::vector<uint8_t>{2, 2 << 6 | 5, 3 << 6 | 1}));
  ASSERT_EQ(p.payload.size(), 8u + 20u + 8u);
  std::vector<uint32_t> words(9);
  std::memcpy(words.data(), p.payload.data(), 36);
  for (uint32_t i = 0; i < 32; ++i) {
    EXPECT_EQ((words[0] >> i & 1) + 2 * (words[1] >> i & 1), i % 3);
    uint32_t u = 0;
    for (uint32_t bit = 0; bit < 5; ++bit) u |= (words[2 + bit] >> i & 1) << bit;
    EXPECT_EQ(u, i);
  }
  EXPECT_EQ(words[7], 1000u);
  EXPECT_EQ(words[8], 1u << 9);
}

TEST(IntPackTest, TakesTheShortestForm) {
  EXPECT_EQ(int_pack_header(0, 0), 0);
  EXPECT_EQ(int_pack_width(int_pack_header(-1, 0)), 1u);
  EXPECT_EQ(int_pack_width(int_pack_header(-128, 127)), 8u);
  EXPECT_EQ(int_pack_width(int_pack_header(-129, 127)), 9u);
  EXPECT_EQ(int_pack_width(int_pack_header(0, 255)), 8u);
  EXPECT_EQ(int_pack_payload_bytes(int_pack_header(7, 7)), 4u);
  EXPECT_EQ(int_pack_width(int_pack_header(INT32_MIN, INT32_MAX)), 32u);
}

TEST(IntPackTest, NeverWritesBeyondItsCapacity) {
  const auto values = blocks_of_every_kind();
  const size_t blocks = values.size() / kIntPackBlock;
  for_each_isa([&](Isa) {
    const Packed p = pack(values);
    for (size_t capacity = 0; capacity < p.payload.size(); capacity += 37) {
      std::vector<uint8_t> room(capacity);  // exact, for a sanitizer
      EXPECT_EQ(QVLMEM_SIMD_PICK(int_pack)(values.data(), p.headers.data(), blocks, room.data(),
                                           capacity),
                SIZE_MAX);
    }
  });
}

TEST(IntPackTest, AnyHeaderUnpacksToSomethingOrIsRefused) {
  std::mt19937 random(4);
  for (int header = 0; header < 256; ++header) {
    Packed p;
    p.headers.assign(3, static_cast<uint8_t>(header));
    std::vector<int32_t> reference;
    for_each_isa([&](Isa isa) {
      const size_t bytes = QVLMEM_SIMD_PICK(int_unpack_measure)(p.headers.data(), 3);
      if ((header & 63) > 32) {
        EXPECT_EQ(bytes, SIZE_MAX);
        return;
      }
      if (isa == Isa::kPortable) {
        p.payload.resize(bytes);
        for (auto& b : p.payload) b = static_cast<uint8_t>(random());
        reference = unpack(p);
      }
      ASSERT_EQ(bytes, p.payload.size());
      EXPECT_EQ(unpack(p), reference) << header;
    });
  }
}

}  // namespace
}  // namespace qvlmem
