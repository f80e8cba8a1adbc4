// SPDX-License-Identifier: Apache-2.0
#include "kernels/coding/huffman_simd.h"

#include <cstring>

#include "kernels/base/simd.h"

QVLMEM_SIMD_BEGIN
namespace {

// Streams coded side by side: as many as hide the latency and fit in x86's registers.
constexpr int kEncodeAbreast = 2;
constexpr int kDecodeAbreast = 4;

HWY_INLINE size_t stream_stride(size_t n) { return (n + kHuffmanStreams - 1) / kHuffmanStreams; }

HWY_INLINE size_t stream_begin(size_t n, int stream) {
  const size_t begin = stream_stride(n) * static_cast<size_t>(stream);
  return begin < n ? begin : n;
}

HWY_INLINE size_t stream_length(size_t n, int stream) {
  return stream_begin(n, stream + 1) - stream_begin(n, stream);
}

// ---- Encoding ----

// Each byte's code in the highest bits, its length in the lowest: what `length` leaves below the
// code is shifted out before a word is written.
struct CodeTable {
  uint64_t entry[256];
};

// A stream being written: the highest `filled` bits of `bits` are to follow, the last one highest.
// Only the low byte of filled counts.
struct BitWriter {
  uint8_t* out;
  uint64_t bits;
  uint64_t filled;

  HWY_INLINE void put(uint64_t entry) {
    bits = bits >> (entry & 63u) | entry;
    filled += entry;
  }

  // Writes 8 bytes, of which the whole ones count.
  HWY_INLINE void flush() {
    const uint64_t word = bits >> (-filled & 63u);
    memcpy(out, &word, 8);
    out += (filled & 0xffu) >> 3;
    filled &= 7u;
  }

  // Writes only bytes that count; a last one, if not whole, filled up with 0.
  HWY_INLINE void flush_bytes(bool last) {
    filled &= 0xffu;
    if (filled == 0) return;
    uint64_t word = bits >> (64u - filled);
    for (; filled >= 8; filled -= 8, word >>= 8) *out++ = static_cast<uint8_t>(word);
    if (last && filled != 0) *out = static_cast<uint8_t>(word);
  }
};

// Between two flushes: 7 bits left over and 4 codes are at most 51.
constexpr size_t kPutsAFlush = 4;
// As many codes have at least 8 bytes: before them a flush cannot pass the end of a stream.
constexpr size_t kCarefulCodes = 64;

// Encodes kCount streams, of which the bytes begin `stride` apart.
template <int kCount>
HWY_INLINE void encode_abreast(const CodeTable& table, const uint8_t* bytes, size_t stride,
                               const size_t* lengths, BitWriter* writers) {
  size_t shortest = lengths[0];
  for (int s = 1; s < kCount; ++s) shortest = lengths[s] < shortest ? lengths[s] : shortest;
  BitWriter w[kCount];
  for (int s = 0; s < kCount; ++s) w[s] = writers[s];
  size_t i = 0;
  for (; i + kPutsAFlush + kCarefulCodes <= shortest; i += kPutsAFlush) {
    for (size_t k = 0; k < kPutsAFlush; ++k) {
      for (int s = 0; s < kCount; ++s) w[s].put(table.entry[bytes[s * stride + i + k]]);
    }
    for (int s = 0; s < kCount; ++s) w[s].flush();
  }
  for (int s = 0; s < kCount; ++s) {
    for (size_t k = i; k < lengths[s]; ++k) {
      w[s].put(table.entry[bytes[s * stride + k]]);
      w[s].flush_bytes(k + 1 == lengths[s]);
    }
  }
}

// ---- Decoding ----

constexpr uint64_t kMarker = uint64_t{1} << 63;
constexpr uint64_t kBytesMask = (uint64_t{1} << 48) - 1;
// Codes out of one refill, which gives at least 56 bits.
constexpr int kLookupsARefill = 5;
// What they write at most: the last entry is stored whole.
constexpr ptrdiff_t kRoomARefill = (kLookupsARefill - 1) * kHuffmanEntryBytes + 8;
// Bytes that they and the refill's own odd bits take, and bytes that a refill reads.
constexpr ptrdiff_t kStepARefill = (kLookupsARefill * kHuffmanMaxBits + 7) / 8;
constexpr ptrdiff_t kReadARefill = 8;

HWY_INLINE uint32_t entry_bits(HuffmanEntry entry) { return (entry >> 48) & 63u; }
HWY_INLINE uint32_t entry_count(HuffmanEntry entry) { return static_cast<uint32_t>(entry >> 56); }

HWY_INLINE uint64_t read_word(const uint8_t* in) {
  uint64_t word;
  memcpy(&word, in, 8);
  return word;
}

// A stream under way. Below the highest set bit of `bits` are bits not yet decoded, the next one
// lowest; as many as there are zeros above it have been decoded since `in`.
struct StreamReader {
  const uint8_t* in;
  const uint8_t* end;
  uint8_t* out;
  uint8_t* out_end;
  uint64_t bits;
};

// How many refills are safe, whatever the bits are.
HWY_INLINE ptrdiff_t safe_refills(const StreamReader& r) {
  const ptrdiff_t by_room = (r.out_end - r.out) / kRoomARefill;
  const ptrdiff_t by_input = (r.end - r.in - kReadARefill) / kStepARefill;
  return by_room < by_input ? by_room : by_input;
}

// Decodes kCount streams as far as all of them are away from their ends.
template <int kCount>
HWY_INLINE void decode_abreast(const HuffmanEntry* table, StreamReader* readers) {
  StreamReader r[kCount];
  for (int s = 0; s < kCount; ++s) r[s] = readers[s];
  for (;;) {
    ptrdiff_t refills = safe_refills(r[0]);
    for (int s = 1; s < kCount; ++s) {
      const ptrdiff_t more = safe_refills(r[s]);
      refills = more < refills ? more : refills;
    }
    if (refills <= 0) break;
    for (; refills > 0; --refills) {
      for (int k = 0; k < kLookupsARefill; ++k) {
        for (int s = 0; s < kCount; ++s) {
          const HuffmanEntry entry = table[r[s].bits & (kHuffmanWindow - 1)];
          memcpy(r[s].out, &entry, 8);
          r[s].bits >>= entry_bits(entry);
          r[s].out += entry_count(entry);
        }
      }
      for (int s = 0; s < kCount; ++s) {
        const uint32_t taken = static_cast<uint32_t>(__builtin_clzll(r[s].bits));
        r[s].in += taken >> 3;
        r[s].bits = (read_word(r[s].in) | kMarker) >> (taken & 7u);
      }
    }
  }
  for (int s = 0; s < kCount; ++s) readers[s] = r[s];
}

// Decodes what is left of a stream, with every step checked.
Status decode_end(const HuffmanEntry* table, const StreamReader& r) {
  size_t position = static_cast<size_t>(__builtin_clzll(r.bits));
  const size_t size = static_cast<size_t>(r.end - r.in);
  uint8_t* out = r.out;
  while (out < r.out_end) {
    const size_t byte = position >> 3;
    if (byte >= size) return Status::kCorrupt;
    uint64_t word = 0;
    memcpy(&word, r.in + byte, size - byte < 8 ? size - byte : 8);
    const HuffmanEntry entry = table[(word >> (position & 7)) & (kHuffmanWindow - 1)];
    const size_t room = static_cast<size_t>(r.out_end - out);
    const size_t count = entry_count(entry) < room ? entry_count(entry) : room;
    memcpy(out, &entry, count);
    out += count;
    position += entry_bits(entry);
  }
  return Status::kOk;
}

}  // namespace

void huffman_count(const uint8_t* bytes, size_t n, uint32_t counts[kHuffmanStreams][256]) {
  // All streams at once: equal bytes in a row would make each increment wait for the last.
  const size_t stride = stream_stride(n);
  const size_t common = stream_length(n, kHuffmanStreams - 1);
  for (size_t i = 0; i < common; ++i) {
    for (int s = 0; s < kHuffmanStreams; ++s) ++counts[s][bytes[s * stride + i]];
  }
  for (int s = 0; s < kHuffmanStreams; ++s) {
    const size_t length = stream_length(n, s);
    for (size_t i = common; i < length; ++i) ++counts[s][bytes[s * stride + i]];
  }
}

void huffman_encode_streams(const HuffmanCode& code, const uint32_t* stream_bytes,
                            const uint8_t* bytes, size_t n, uint8_t* out) {
  CodeTable table;
  for (int v = 0; v < 256; ++v) {
    const uint32_t length = code.length[v];
    table.entry[v] =
        length == 0 ? 0 : static_cast<uint64_t>(code.bits[v]) << (64 - length) | length;
  }
  const size_t stride = stream_stride(n);
  for (int group = 0; group < kHuffmanStreams; group += kEncodeAbreast) {
    size_t lengths[kEncodeAbreast];
    BitWriter writers[kEncodeAbreast];
    for (int s = 0; s < kEncodeAbreast; ++s) {
      lengths[s] = stream_length(n, group + s);
      writers[s] = BitWriter{out, 0, 0};
      out += stream_bytes[group + s];
    }
    encode_abreast<kEncodeAbreast>(table, bytes + stream_begin(n, group), stride, lengths, writers);
  }
}

void huffman_fill_table(const HuffmanCode& code, HuffmanTable* table) {
  // The bytes that have codes, shorter codes first.
  uint8_t symbols[256];
  int ends[kHuffmanMaxBits + 1];
  int count = 0;
  ends[0] = 0;
  for (uint32_t length = 1; length <= kHuffmanMaxBits; ++length) {
    for (uint32_t v = code.first; v <= code.last; ++v) {
      if (code.length[v] == length) symbols[count++] = static_cast<uint8_t>(v);
    }
    ends[length] = count;
  }
  table->entry[0] = 0;
  for (uint32_t bits = 1; bits <= kHuffmanMaxBits; ++bits) {
    HuffmanEntry* level = table->entry + (size_t{1} << bits) - 1;
    // A window too short for the code that it begins with holds nothing.
    if (bits < kHuffmanMaxBits) memset(level, 0, sizeof(HuffmanEntry) << bits);
    for (int k = 0; k < ends[bits]; ++k) {
      const uint32_t v = symbols[k], length = code.length[v];
      const size_t rests = size_t{1} << (bits - length);
      const HuffmanEntry* rest = table->entry + rests - 1;
      HuffmanEntry* window = level + code.bits[v];
      const HuffmanEntry taken = static_cast<uint64_t>(length) << 48 | uint64_t{1} << 56;
      for (size_t i = 0; i < rests; ++i) {
        HuffmanEntry entry = rest[i];
        if (HWY_UNLIKELY(entry_count(entry) == kHuffmanEntryBytes)) {  // its last byte gives way
          const uint64_t dropped = code.length[entry >> 40 & 0xffu];
          entry -= dropped << 48 | uint64_t{1} << 56;
        }
        window[i << length] = ((entry << 8 | v) & kBytesMask) | ((entry & ~kBytesMask) + taken);
      }
    }
  }
}

Status huffman_decode_streams(const HuffmanTable& table, const uint8_t* in,
                              const uint32_t* stream_bytes, size_t n, uint8_t* bytes) {
  const HuffmanEntry* entries = table.entry + kHuffmanWindow - 1;
  for (int group = 0; group < kHuffmanStreams; group += kDecodeAbreast) {
    StreamReader readers[kDecodeAbreast];
    bool all_long = true;
    for (int s = 0; s < kDecodeAbreast; ++s) {
      const size_t size = stream_bytes[group + s], length = stream_length(n, group + s);
      uint8_t* out = bytes + stream_begin(n, group + s);
      all_long = all_long && size >= kReadARefill;
      readers[s] = StreamReader{in, in + size, out, out + length, kMarker};
      in += size;
    }
    if (all_long) {
      for (StreamReader& r : readers) r.bits = read_word(r.in) | kMarker;
      decode_abreast<kDecodeAbreast>(entries, readers);
    }
    for (StreamReader& r : readers) {
      if (all_long) decode_abreast<1>(entries, &r);
      const Status status = decode_end(entries, r);
      if (status != Status::kOk) return status;
    }
  }
  return Status::kOk;
}

QVLMEM_SIMD_END
