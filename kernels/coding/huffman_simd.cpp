// SPDX-License-Identifier: Apache-2.0
#include "kernels/coding/huffman_simd.h"

#include <cstring>

#include "kernels/coding/huffman_streams.h"

QVLMEM_SIMD_BEGIN
namespace {

// Streams coded side by side: as many as hide the latency and fit in x86's registers.
constexpr int kEncodeAbreast = 2;
constexpr int kDecodeAbreast = 4;

// ---- Encoding ----

// Entries: a code in the highest bits, its length in the lowest. What the length leaves below the
// codes is shifted out before a word is written.
HWY_INLINE uint64_t code_entry(const HuffmanCode& code, size_t v) {
  const uint32_t length = code.length[v];
  return length == 0 ? 0 : static_cast<uint64_t>(code.bits[v]) << (64 - length) | length;
}

// One code a byte.
struct ByteCodes {
  static constexpr size_t kBytes = 1;

  explicit ByteCodes(const HuffmanCode& code) {
    for (size_t v = 0; v < 256; ++v) entry[v] = code_entry(code, v);
  }
  HWY_INLINE uint64_t operator()(const uint8_t* bytes) const { return entry[bytes[0]]; }

  uint64_t entry[256];
};

// The codes of two bytes in one.
struct PairCodes {
  static constexpr size_t kBytes = 2;

  static bool fit(const HuffmanCode& code) { return code.last - code.first < int{kPairRange}; }

  explicit PairCodes(const HuffmanCode& code) {
    constexpr uint64_t kLength = 63;
    uint64_t single[kPairRange] = {};
    for (size_t v = code.first; v <= code.last; ++v) single[v % kPairRange] = code_entry(code, v);
    for (size_t second = 0; second < kPairRange; ++second) {
      if (single[second] == 0) continue;
      const uint64_t length = single[second] & kLength, bits = single[second] - length;
      for (size_t first = 0; first < kPairRange; ++first) {
        const uint64_t first_length = single[first] & kLength;
        entry[kPairRange * second + first] =
            ((single[first] - first_length) >> length | bits) + (first_length + length);
      }
    }
  }

  HWY_INLINE uint64_t operator()(const uint8_t* bytes) const { return entry[pair_index(bytes)]; }

  uint64_t entry[kPairRange * kPairRange];
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
};

// Between two flushes: 7 bits left over and 4 codes are at most 51.
constexpr size_t kBytesAFlush = 4;
// As many codes have at least 8 bytes: before them a flush cannot pass the end of a stream.
constexpr size_t kCarefulCodes = 64;
// Room for those, for what does not fill a round, and for the streams' difference in length, which
// is less than 8; and for what a flush writes beyond.
constexpr size_t kLastBytes = (kCarefulCodes + kBytesAFlush + 8) * kHuffmanMaxBits / 8 + 16;

// Encodes kCount streams, of which the bytes begin `stride` apart.
template <int kCount, class Codes>
HWY_INLINE void encode_abreast(const HuffmanCode& code, const Codes& codes, const uint8_t* bytes,
                               size_t stride, const size_t* lengths, BitWriter* writers) {
  size_t shortest = lengths[0];
  for (int s = 1; s < kCount; ++s) shortest = lengths[s] < shortest ? lengths[s] : shortest;
  BitWriter w[kCount];
  for (int s = 0; s < kCount; ++s) w[s] = writers[s];
  size_t i = 0;
  for (; i + kBytesAFlush + kCarefulCodes <= shortest; i += kBytesAFlush) {
    for (size_t k = 0; k < kBytesAFlush; k += Codes::kBytes) {
      for (int s = 0; s < kCount; ++s) w[s].put(codes(bytes + s * stride + i + k));
    }
    for (int s = 0; s < kCount; ++s) w[s].flush();
  }
  // The end, by way of a buffer: a flush writes more than counts.
  for (int s = 0; s < kCount; ++s) {
    uint8_t buffer[kLastBytes];
    uint8_t* const out = w[s].out;
    w[s].out = buffer;
    for (size_t k = i; k < lengths[s]; ++k) {
      w[s].put(code_entry(code, bytes[s * stride + k]));
      w[s].flush();
    }
    memcpy(out, buffer, static_cast<size_t>(w[s].out - buffer) + (w[s].filled != 0 ? 1 : 0));
  }
}

template <class Codes>
void encode_streams(const HuffmanCode& code, const uint32_t* stream_bytes, const uint8_t* bytes,
                    size_t n, uint8_t* out) {
  const Codes codes(code);
  for (int group = 0; group < kHuffmanStreams; group += kEncodeAbreast) {
    size_t lengths[kEncodeAbreast];
    BitWriter writers[kEncodeAbreast];
    for (int s = 0; s < kEncodeAbreast; ++s) {
      lengths[s] = stream_length(n, group + s);
      writers[s] = BitWriter{out, 0, 0};
      out += stream_bytes[group + s];
    }
    encode_abreast<kEncodeAbreast>(code, codes, bytes + stream_begin(n, group), stream_stride(n),
                                   lengths, writers);
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

void huffman_encode_streams(const HuffmanCode& code, const uint32_t* stream_bytes,
                            const uint8_t* bytes, size_t n, uint8_t* out) {
  if (PairCodes::fit(code)) {
    encode_streams<PairCodes>(code, stream_bytes, bytes, n, out);
  } else {
    encode_streams<ByteCodes>(code, stream_bytes, bytes, n, out);
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
