// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cpp_tests/kernels/isa_fixture.h"
#include "kernels/coding/huffman.h"
#include "kernels/coding/huffman_simd.h"

namespace qvlmem {
namespace {

using Bytes = std::vector<uint8_t>;

// n bytes of which value v is about ratio^v times as frequent as 0.
Bytes geometric(size_t n, double ratio, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(1e-9, 1.0);
  Bytes bytes(n);
  for (auto& byte : bytes) {
    byte = static_cast<uint8_t>(std::min(255.0, std::log(uniform(random)) / std::log(ratio)));
  }
  return bytes;
}

double entropy_bits(const Bytes& bytes) {
  double counts[256] = {}, bits = 0;
  for (uint8_t byte : bytes) ++counts[byte];
  for (double c : counts) {
    if (c > 0) bits -= c * std::log2(c / static_cast<double>(bytes.size()));
  }
  return bits;
}

Bytes encode(const Bytes& bytes) {
  HuffmanPlan plan;
  EXPECT_TRUE(huffman_plan(bytes.data(), bytes.size(), &plan));
  const std::unique_ptr<uint8_t[]> out(new uint8_t[plan.size]);
  huffman_encode(plan, bytes.data(), bytes.size(), out.get());
  return Bytes(out.get(), out.get() + plan.size);
}

Status decode(const Bytes& coded, size_t n, Bytes* bytes) {
  const std::unique_ptr<uint8_t[]> in(new uint8_t[coded.size()]), out(new uint8_t[n]);
  std::copy(coded.begin(), coded.end(), in.get());
  const Status status = huffman_decode(in.get(), coded.size(), n, out.get());
  bytes->assign(out.get(), out.get() + n);
  return status;
}

TEST(HuffmanTest, ComesBackNearTheEntropy) {
  for (size_t n : {2, 3, 8, 9, 17, 100, 1000, 4304, 65536, 131072}) {
    for (double ratio : {0.01, 0.3, 0.5, 0.7, 0.95, 0.999999}) {
      SCOPED_TRACE(std::to_string(n) + " bytes, ratio " + std::to_string(ratio));
      Bytes bytes = geometric(n, ratio, 3);
      bytes[0] = 0;
      bytes[n - 1] = 1;
      Bytes reference;
      for_each_isa([&](Isa isa) {
        const Bytes coded = encode(bytes);
        if (isa == Isa::kPortable) reference = coded;
        ASSERT_EQ(coded, reference);
        Bytes back;
        ASSERT_EQ(decode(coded, n, &back), Status::kOk);
        ASSERT_EQ(back, bytes);
      });
      // One bit a byte above the entropy at worst; header, sizes and padding are 154 bytes at most.
      EXPECT_LE(reference.size() * 8.0, entropy_bits(bytes) + static_cast<double>(n) + 154 * 8);
    }
  }
}

// The counts, of ranges of values to either side of what is counted by pairs. One byte alone tells
// how wide the range is, wherever it stands.
TEST(HuffmanTest, CountsEachStream) {
  std::mt19937 random(5);
  for (size_t n : {1, 8, 63, 1001, 16383, 16384, 16391, 65535, 65536, 131071, 131072}) {
    for (const auto& [first, range] :
         {std::pair{0, 1}, {7, 2}, {40, 64}, {192, 64}, {0, 64}, {100, 65}, {191, 65}, {0, 256}}) {
      for (size_t outlier : {size_t{0}, size_t{200}, n / 2, n - 200, n - 65, n - 1}) {
        if (outlier >= n) continue;
        for (const bool high : {false, true}) {
          SCOPED_TRACE(std::to_string(n) + " bytes, " + std::to_string(range) + " values from " +
                       std::to_string(first) + ", one at " + std::to_string(outlier));
          Bytes bytes(n);
          const uint32_t inner = static_cast<uint32_t>(std::max(range - 1, 1));
          for (auto& byte : bytes) {
            byte = static_cast<uint8_t>(first + (high ? 0 : range - inner) + random() % inner);
          }
          bytes[outlier] = static_cast<uint8_t>(high ? first + range - 1 : first);
          std::vector<uint32_t> expected(kHuffmanStreams * 256);
          const size_t stride = (n + kHuffmanStreams - 1) / kHuffmanStreams;
          for (size_t i = 0; i < n; ++i) ++expected[i / stride * 256 + bytes[i]];
          for_each_isa([&](Isa) {
            std::vector<uint32_t> counts(kHuffmanStreams * 256);
            QVLMEM_SIMD_PICK(huffman_count)
            (bytes.data(), n, reinterpret_cast<uint32_t(*)[256]>(counts.data()));
            ASSERT_EQ(counts, expected);
          });
        }
      }
    }
  }
}

TEST(HuffmanTest, CodesAreCompleteAndLimited) {
  std::mt19937 random(11);
  for (int round = 0; round < 200; ++round) {
    uint32_t counts[256] = {};
    const uint32_t used = 2 + random() % 255;
    for (uint32_t i = 0; i < used; ++i) {
      counts[random() % 256] += 1 + (random() % 2 == 0 ? 1u << random() % 17 : 0);
    }
    counts[0] += 1;
    counts[255] += 1;
    HuffmanCode code;
    huffman_build(counts, &code);
    double sum = 0;
    for (int v = 0; v < 256; ++v) {
      ASSERT_EQ(code.length[v] != 0, counts[v] != 0);
      ASSERT_LE(code.length[v], kHuffmanMaxBits);
      if (counts[v] != 0) sum += std::ldexp(1.0, -code.length[v]);
      for (int w = 0; w < 256; ++w) {
        if (counts[w] == 0 || counts[v] <= counts[w]) continue;
        ASSERT_LE(code.length[v], code.length[w]);
      }
    }
    EXPECT_EQ(sum, 1.0);
  }
}

// Counts that grow as Fibonacci's numbers ask for codes as long as there are bytes.
TEST(HuffmanTest, ShortensCodesThatAreTooLong) {
  uint32_t counts[256] = {};
  uint32_t a = 1, b = 1;
  for (int v = 0; v < 24; ++v) {
    counts[v] = a;
    b += a;
    a = b - a;
  }
  HuffmanCode code;
  huffman_build(counts, &code);
  EXPECT_EQ(*std::max_element(code.length, code.length + 256), kHuffmanMaxBits);
  EXPECT_EQ(code.length[23], 1);
}

TEST(HuffmanTest, EqualBytesHaveNoCode) {
  const Bytes bytes(1000, 42);
  HuffmanPlan plan;
  EXPECT_FALSE(huffman_plan(bytes.data(), bytes.size(), &plan));
}

TEST(HuffmanTest, MeasuresWhatItTakes) {
  const Bytes bytes = geometric(5000, 0.7, 1);
  const size_t measured = huffman_measure(bytes.data(), bytes.size());
  const size_t size = encode(bytes).size();
  EXPECT_LE(measured, size);
  EXPECT_GE(measured + kHuffmanStreams, size);
}

TEST(HuffmanTest, DamageIsRefusedOrStaysInside) {
  const Bytes good = encode(geometric(700, 0.6, 2));
  Bytes back;
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(decode(Bytes(good.begin(), good.begin() + size), 700, &back), Status::kCorrupt);
  }
  EXPECT_EQ(decode(good, kHuffmanMaxCount + 1, &back), Status::kCorrupt);
  EXPECT_EQ(decode(good, 2000, &back), Status::kCorrupt);  // the streams hold fewer
  for_each_isa([&](Isa) {
    for (size_t at = 0; at < good.size(); ++at) {
      for (int flip = 1; flip < 256; flip += at < 64 ? 1 : 37) {
        Bytes bad = good;
        bad[at] = static_cast<uint8_t>(bad[at] ^ flip);
        decode(bad, 700, &back);
      }
    }
  });
  Bytes incomplete = good;
  incomplete[2] = 0x0f;  // a length beyond the limit
  EXPECT_EQ(decode(incomplete, 700, &back), Status::kCorrupt);
}

}  // namespace
}  // namespace qvlmem
