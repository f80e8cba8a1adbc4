// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "kernels/coding/byte_pack_simd.h"

namespace qvlmem {
namespace {

using Bytes = std::vector<uint8_t>;

// n bytes from `base` to base + spread (modulo 256 where that passes 255).
Bytes spread_bytes(size_t n, int base, int spread, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(n);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(base + random() % (spread + 1));
  return bytes;
}

// Packs in pieces of `piece` bytes, into memory of exactly the bound.
Bytes pack(const Bytes& bytes, size_t piece) {
  const std::unique_ptr<uint8_t[]> out(new uint8_t[byte_pack_bound(bytes.size())]);
  BytePackWriter writer = byte_pack_begin(bytes.size(), out.get());
  for (size_t i = 0; i < bytes.size(); i += piece) {
    const size_t n = std::min(piece, bytes.size() - i);
    QVLMEM_SIMD_PICK(byte_pack)(bytes.data() + i, n, &writer);
  }
  return Bytes(out.get(), writer.planes);
}

Status unpack(const Bytes& packed, size_t n, size_t piece, Bytes* bytes) {
  const std::unique_ptr<uint8_t[]> in(new uint8_t[packed.size()]);
  std::copy(packed.begin(), packed.end(), in.get());
  BytePackReader reader;
  const Status status = QVLMEM_SIMD_PICK(byte_unpack_begin)(in.get(), packed.size(), n, &reader);
  if (status != Status::kOk) return status;
  bytes->clear();
  for (size_t i = 0; i < n; i += piece) {
    const size_t count = std::min(piece, n - i);
    const std::unique_ptr<uint8_t[]> out(new uint8_t[byte_pack_blocks(count) * kBytePackBlock]);
    QVLMEM_SIMD_PICK(byte_unpack)(&reader, count, out.get());
    bytes->insert(bytes->end(), out.get(), out.get() + count);
  }
  return Status::kOk;
}

constexpr size_t kSizes[] = {0, 1, 31, 32, 33, 63, 64, 65, 72, 96, 127, 128, 129, 1000, 4304};

TEST(BytePackTest, EveryWidthComesBackAlikeOnEveryIsaAndInAnyPieces) {
  for (size_t n : kSizes) {
    for (int spread : {0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 100, 128, 255}) {
      SCOPED_TRACE(std::to_string(n) + " bytes, spread " + std::to_string(spread));
      const Bytes bytes = spread_bytes(n, spread % 3 == 0 ? 200 : 3, spread, 5);
      Bytes reference;
      for_each_isa([&](Isa isa) {
        for (size_t piece : {size_t{64}, size_t{192}, size_t{8192}}) {
          const Bytes packed = pack(bytes, piece);
          if (isa == Isa::kPortable && piece == 64) reference = packed;
          ASSERT_EQ(packed, reference);
          ASSERT_EQ(packed.size(), QVLMEM_SIMD_PICK(byte_pack_measure)(bytes.data(), n));
          Bytes back;
          ASSERT_EQ(unpack(packed, n, piece, &back), Status::kOk);
          ASSERT_EQ(back, bytes);
        }
      });
    }
  }
}

TEST(BytePackTest, ABlockTakesTheBitsOfItsOwnSpread) {
  Bytes bytes = spread_bytes(96, 50, 7, 1);
  bytes[0] = 50, bytes[1] = 57;
  std::fill(bytes.begin() + 32, bytes.begin() + 64, uint8_t{255});
  bytes[64] = 0, bytes[65] = 255;
  // Widths 3, 0 and 8; headers of 12 bits, the last half byte filled up.
  EXPECT_EQ(pack(bytes, 64).size(), 4 * (3 + 0 + 8) + 3 + 2u);
}

TEST(BytePackTest, DamageIsRefusedOrStaysInside) {
  for (size_t n : {size_t{31}, size_t{64}, size_t{650}}) {
    const Bytes good = pack(spread_bytes(n, 20, 11, 2), 64);
    Bytes back;
    for_each_isa([&](Isa) {
      for (size_t size = 0; size < good.size(); ++size) {
        ASSERT_EQ(unpack(Bytes(good.begin(), good.begin() + size), n, 64, &back), Status::kCorrupt);
      }
      Bytes longer = good;
      longer.push_back(0);
      ASSERT_EQ(unpack(longer, n, 64, &back), Status::kCorrupt);
      const size_t width_bytes = (byte_pack_blocks(n) + 1) / 2;
      for (size_t at = 0; at < good.size(); ++at) {
        for (int flip = 1; flip < 256; ++flip) {
          Bytes bad = good;
          bad[at] = static_cast<uint8_t>(bad[at] ^ flip);
          const Status status = unpack(bad, n, 64, &back);
          // Any single nibble that changes changes the size; bases and planes may be anything.
          const bool one_width = at < width_bytes && (flip < 16 || flip % 16 == 0);
          if (one_width || at >= width_bytes) {
            ASSERT_EQ(status, one_width ? Status::kCorrupt : Status::kOk);
          }
        }
      }
    });
  }
}

}  // namespace
}  // namespace qvlmem
