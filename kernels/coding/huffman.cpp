// SPDX-License-Identifier: Apache-2.0
#include "kernels/coding/huffman.h"

#include <algorithm>
#include <cstring>

#include "kernels/coding/huffman_simd.h"

namespace qvlmem {
namespace {

constexpr size_t kSizesBytes = 2 * kHuffmanStreams;

// 2^7.75: where fewer than one pair of bytes in so many is of equal ones, coding gains less than a
// 32nd.
constexpr uint64_t kPairsOfDullBytes = 215;
size_t lengths_bytes(int first, int last) { return static_cast<size_t>(last - first) / 2 + 1; }

// Bytes before the streams.
size_t header_bytes(int first, int last) { return 2 + lengths_bytes(first, last) + kSizesBytes; }

uint32_t reversed(uint32_t bits, int length) {
  uint32_t result = 0;
  for (int i = 0; i < length; ++i) result |= ((bits >> i) & 1u) << (length - 1 - i);
  return result;
}

// Fills in bits, first and last from the lengths.
void assign_codes(HuffmanCode* code) {
  uint32_t of_length[kHuffmanMaxBits + 1] = {};
  for (int v = 0; v < 256; ++v) ++of_length[code->length[v]];
  uint32_t next[kHuffmanMaxBits + 1] = {};
  for (int l = 2; l <= kHuffmanMaxBits; ++l) next[l] = (next[l - 1] + of_length[l - 1]) << 1;
  int first = 256, last = 0;
  for (int v = 0; v < 256; ++v) {
    const int length = code->length[v];
    code->bits[v] = 0;
    if (length == 0) continue;
    code->bits[v] = static_cast<uint16_t>(reversed(next[length]++, length));
    first = std::min(first, v);
    last = v;
  }
  code->first = static_cast<uint8_t>(first);
  code->last = static_cast<uint8_t>(last);
}

// Turns numbers of codes of each length (longer ones already counted as kHuffmanMaxBits) into those
// of a complete code. Each step takes one code away from the longest and hangs it, with one of the
// next shorter length, below that one's place: the sum of 2^-length falls by 2^-kHuffmanMaxBits.
void limit_lengths(uint32_t of_length[kHuffmanMaxBits + 1]) {
  uint32_t sum = 0;
  for (int l = 1; l <= kHuffmanMaxBits; ++l) sum += of_length[l] << (kHuffmanMaxBits - l);
  for (; sum > kHuffmanWindow; --sum) {
    --of_length[kHuffmanMaxBits];
    int l = kHuffmanMaxBits - 1;
    while (of_length[l] == 0) --l;
    --of_length[l];
    of_length[l + 1] += 2;
  }
}

bool is_complete(const HuffmanCode& code) {
  uint32_t sum = 0;
  for (int v = 0; v < 256; ++v) {
    if (code.length[v] > kHuffmanMaxBits) return false;
    if (code.length[v] != 0) sum += 1u << (kHuffmanMaxBits - code.length[v]);
  }
  return sum == kHuffmanWindow;
}

}  // namespace

void huffman_build(const uint32_t counts[256], HuffmanCode* code) noexcept {
  // Leaves in order of their counts (then of their bytes), then inner nodes as they arise, which is
  // in order too: the two smallest nodes are always at the heads of these two queues.
  uint32_t leaf[256], weight[511];
  uint16_t parent[511];
  uint32_t depth[511];
  int leaves = 0;
  for (uint32_t v = 0; v < 256; ++v) {
    if (counts[v] != 0) leaf[leaves++] = counts[v] << 8 | v;
  }
  std::sort(leaf, leaf + leaves);
  for (int i = 0; i < leaves; ++i) weight[i] = leaf[i] >> 8;
  const int root = 2 * leaves - 2;
  int next_leaf = 0, next_inner = leaves;
  for (int node = leaves; node <= root; ++node) {
    uint32_t sum = 0;
    for (int child = 0; child < 2; ++child) {
      const bool take_leaf =
          next_leaf < leaves && (next_inner >= node || weight[next_leaf] <= weight[next_inner]);
      const int taken = take_leaf ? next_leaf++ : next_inner++;
      sum += weight[taken];
      parent[taken] = static_cast<uint16_t>(node);
    }
    weight[node] = sum;
  }
  uint32_t of_length[kHuffmanMaxBits + 1] = {};
  depth[root] = 0;
  for (int node = root - 1; node >= 0; --node) {
    depth[node] = depth[parent[node]] + 1;
    if (node < leaves) ++of_length[std::min<uint32_t>(depth[node], kHuffmanMaxBits)];
  }
  limit_lengths(of_length);
  std::memset(code->length, 0, sizeof(code->length));
  int length = kHuffmanMaxBits;
  for (int i = 0; i < leaves; ++i) {
    while (of_length[length] == 0) --length;
    --of_length[length];
    code->length[leaf[i] & 0xffu] = static_cast<uint8_t>(length);
  }
  assign_codes(code);
}

uint64_t huffman_bits(const uint32_t counts[256], const HuffmanCode& code) noexcept {
  uint64_t bits = 0;
  for (int v = 0; v < 256; ++v) bits += uint64_t{counts[v]} * code.length[v];
  return bits;
}

size_t huffman_measure(const uint8_t* bytes, size_t n) noexcept {
  uint32_t counts[256] = {};
  for (size_t i = 0; i < n; ++i) ++counts[bytes[i]];
  if (counts[bytes[0]] == n) return header_bytes(bytes[0], bytes[0]);
  // Two bytes drawn are equal with probability 2^-H at least, H bits their entropy.
  uint64_t equal_pairs = 0;
  for (int v = 0; v < 256; ++v) equal_pairs += uint64_t{counts[v]} * (counts[v] - 1);
  if (equal_pairs * kPairsOfDullBytes <= uint64_t{n} * (n - 1)) return n;
  HuffmanCode code;
  huffman_build(counts, &code);
  return header_bytes(code.first, code.last) + static_cast<size_t>(huffman_bits(counts, code) / 8);
}

bool huffman_plan(const uint8_t* bytes, size_t n, HuffmanPlan* plan) noexcept {
  uint32_t counts[kHuffmanStreams][256] = {};
  QVLMEM_SIMD_PICK(huffman_count)(bytes, n, counts);
  uint32_t total[256];
  for (int v = 0; v < 256; ++v) {
    total[v] = 0;
    for (int s = 0; s < kHuffmanStreams; ++s) total[v] += counts[s][v];
  }
  if (total[bytes[0]] == n) return false;
  huffman_build(total, &plan->code);
  plan->size = header_bytes(plan->code.first, plan->code.last);
  for (int s = 0; s < kHuffmanStreams; ++s) {
    plan->stream_bytes[s] = static_cast<uint32_t>((huffman_bits(counts[s], plan->code) + 7) / 8);
    plan->size += plan->stream_bytes[s];
  }
  return true;
}

void huffman_encode(const HuffmanPlan& plan, const uint8_t* bytes, size_t n,
                    uint8_t* out) noexcept {
  const HuffmanCode& code = plan.code;
  *out++ = code.first;
  *out++ = code.last;
  for (int v = code.first; v <= code.last; v += 2) {
    const int high = v < code.last ? code.length[v + 1] : 0;
    *out++ = static_cast<uint8_t>(code.length[v] | high << 4);
  }
  for (int s = 0; s < kHuffmanStreams; ++s) {
    *out++ = static_cast<uint8_t>(plan.stream_bytes[s]);
    *out++ = static_cast<uint8_t>(plan.stream_bytes[s] >> 8);
  }
  QVLMEM_SIMD_PICK(huffman_encode_streams)(code, plan.stream_bytes, bytes, n, out);
}

Status huffman_decode(const uint8_t* in, size_t size, size_t n, uint8_t* bytes) noexcept {
  if (size < 2 || in[0] > in[1] || n > kHuffmanMaxCount) return Status::kCorrupt;
  HuffmanCode code{};
  const int first = in[0], last = in[1];
  if (size < header_bytes(first, last)) return Status::kCorrupt;
  in += 2;
  for (int v = first; v <= last; ++v) {
    code.length[v] = static_cast<uint8_t>((in[(v - first) / 2] >> (4 * ((v - first) % 2))) & 0x0f);
  }
  if (!is_complete(code)) return Status::kCorrupt;
  in += lengths_bytes(first, last);
  uint32_t stream_bytes[kHuffmanStreams];
  size_t sum = header_bytes(first, last);
  for (int s = 0; s < kHuffmanStreams; ++s) {
    stream_bytes[s] = in[2 * s] | static_cast<uint32_t>(in[2 * s + 1]) << 8;
    sum += stream_bytes[s];
  }
  if (sum != size) return Status::kCorrupt;
  in += kSizesBytes;
  assign_codes(&code);
  HuffmanTable table;
  QVLMEM_SIMD_PICK(huffman_fill_table)(code, &table);
  return QVLMEM_SIMD_PICK(huffman_decode_streams)(table, in, stream_bytes, n, bytes);
}

}  // namespace qvlmem
