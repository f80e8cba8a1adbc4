// SPDX-License-Identifier: Apache-2.0
// The compact forms of the index.
#include <algorithm>
#include <cstring>

#include "kernels/sparse/sparse.h"
#include "kernels/sparse/sparse_decode_simd.h"
#include "kernels/sparse/sparse_encode_simd.h"

namespace qvlmem {
namespace {

constexpr int64_t kUnitBlocks = kSparseUnit / kSparseBlock;

// Set bits among the first n at `bits`; -1 where a bit of the last byte beyond them is set.
int64_t count_bits(const uint8_t* bits, int64_t n) {
  int64_t count = 0, byte = 0;
  for (; byte + 8 <= n / 8; byte += 8) {
    uint64_t word;
    std::memcpy(&word, bits + byte, 8);
    count += __builtin_popcountll(word);
  }
  for (; byte < n / 8; ++byte) count += __builtin_popcount(bits[byte]);
  if (n % 8 != 0) {
    if (bits[byte] >> (n % 8) != 0) return -1;
    count += __builtin_popcount(bits[byte]);
  }
  return count;
}

// One unit's part of an index. Byte: uint8_t to write, const uint8_t to read.
template <class Byte>
struct UnitIndex {
  Byte* mask;
  Byte* block_counts;
  Byte* full_bits;
  Byte* positions;  // of the unit's first stored element
  int64_t numel;    // elements of the unit
  int64_t blocks;
  int64_t count;  // stored elements
};

using UnitReader = UnitIndex<const uint8_t>;

template <class Byte>
UnitIndex<Byte> unit_index(const SparsePlan& plan, Byte* index, const int64_t* offsets,
                           int64_t unit) {
  const int64_t width = plan.form == SparseForm::kUnit16 ? 2 : 1;
  UnitIndex<Byte> u;
  u.mask = index + plan.mask_offset + unit * (kSparseUnit / 8);
  u.block_counts = index + plan.block_counts_offset + unit * kUnitBlocks;
  u.full_bits = index + plan.full_bits_offset + unit * (kUnitBlocks / 8);
  u.positions = index + plan.positions_offset + offsets[unit] * width;
  u.numel = sparse_unit_numel(plan, unit);
  u.blocks = (u.numel + kSparseBlock - 1) / kSparseBlock;
  u.count = offsets[unit + 1] - offsets[unit];
  return u;
}

// Stored elements of block b of the unit; -1 where the count is no count.
int64_t block_count(const UnitReader& u, int64_t b) {
  const int64_t count = u.block_counts[b];
  if (((u.full_bits[b / 8] >> (b % 8)) & 1) == 0) return count;
  return count == 0 ? kSparseBlock : -1;
}

// Whether the counts of blocks add up to the unit's, and nothing follows them in the last byte.
bool block_counts_agree(const UnitReader& u) {
  int64_t total = 0;
  for (int64_t b = 0; b < u.blocks; ++b) {
    const int64_t count = block_count(u, b);
    if (count < 0) return false;
    total += count;
  }
  return total == u.count && count_bits(u.full_bits, u.blocks) >= 0;
}

void encode_index(const SparsePlan& plan, const SparseScratch& scratch, const int64_t* offsets,
                  int64_t unit, uint8_t* index) {
  const UnitIndex<uint8_t> u = unit_index(plan, index, offsets, unit);
  const uint16_t count = static_cast<uint16_t>(scratch.count);
  std::memcpy(index + unit * 2, &count, 2);
  switch (plan.form) {
    case SparseForm::kBitmask:
      std::memcpy(u.mask, scratch.bits, static_cast<size_t>((u.numel + 7) / 8));
      return;
    case SparseForm::kBlock8: {
      uint16_t counts[kUnitBlocks] = {};
      for (int64_t k = 0; k < u.count; ++k) {
        ++counts[scratch.positions[k] / kSparseBlock];
        u.positions[k] = static_cast<uint8_t>(scratch.positions[k] % kSparseBlock);
      }
      std::memset(u.full_bits, 0, static_cast<size_t>((u.blocks + 7) / 8));
      for (int64_t b = 0; b < u.blocks; ++b) {
        u.block_counts[b] = static_cast<uint8_t>(counts[b]);
        if (counts[b] == kSparseBlock) u.full_bits[b / 8] |= static_cast<uint8_t>(1u << (b % 8));
      }
      return;
    }
    case SparseForm::kUnit16:
      std::memcpy(u.positions, scratch.positions, static_cast<size_t>(u.count * 2));
      return;
  }
}

class UnitDecoder {
 public:
  UnitDecoder(const SparsePlan& plan, const void* index, const int64_t* offsets, const void* values,
              bool stream)
      : plan_(plan),
        index_(static_cast<const uint8_t*>(index)),
        offsets_(offsets),
        values_(static_cast<const char*>(values)),
        stream_(stream) {}

  // y: of the unit's elements alone.
  bool decode(int64_t unit, void* y) const {
    const UnitReader u = unit_index(plan_, index_, offsets_, unit);
    const void* values = values_ + offsets_[unit] * plan_.element_bytes;
    switch (plan_.form) {
      case SparseForm::kBitmask: {
        if (count_bits(u.mask, u.numel) != u.count) return false;
        const size_t room = static_cast<size_t>(plan_.nnz - offsets_[unit]);
        expand_(u.mask, values, room, plan_.element_bytes, static_cast<size_t>(u.numel), stream_,
                y);
        return true;
      }
      case SparseForm::kBlock8:
        return blocks(u, values, y);
      case SparseForm::kUnit16:
        break;
    }
    return scatter_(u.positions, SparsePositions::kUInt16, 0, 0, u.count, values,
                    plan_.element_bytes, 0, u.numel, stream_, y) == u.count;
  }

 private:
  bool blocks(const UnitReader& u, const void* values, void* y) const {
    if (!block_counts_agree(u)) return false;
    int64_t first = 0;
    for (int64_t b = 0; b < u.blocks; ++b) {
      const int64_t begin = b * kSparseBlock;
      const int64_t limit = first + block_count(u, b);
      first =
          scatter_(u.positions, SparsePositions::kUInt8, begin, first, limit, values,
                   plan_.element_bytes, begin, std::min(begin + kSparseBlock, u.numel), stream_, y);
      if (first != limit) return false;
    }
    return true;
  }

  const SparsePlan& plan_;
  const uint8_t* index_;
  const int64_t* offsets_;
  const char* values_;
  bool stream_;
  decltype(&portable::sparse_expand_run) expand_ = QVLMEM_SIMD_PICK(sparse_expand_run);
  decltype(&portable::sparse_scatter_run) scatter_ = QVLMEM_SIMD_PICK(sparse_scatter_run);
};

// uint16 positions at any address.
struct Positions16 {
  const uint8_t* bytes;
  uint16_t operator[](int64_t k) const {
    uint16_t value;
    std::memcpy(&value, bytes + k * 2, 2);
    return value;
  }
};

// Appends base + position for each set bit; returns how many.
int64_t positions_of_bits(const uint8_t* bits, int64_t n, int64_t base, int64_t* out) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += 8) {
    for (uint32_t byte = bits[i / 8]; byte != 0; byte &= byte - 1) {
      out[count++] = base + i + __builtin_ctz(byte);
    }
  }
  return count;
}

// Copies positions out as base + position; false where they are not increasing within n.
template <class Index>
bool copy_positions(const Index& index, int64_t first, int64_t last, int64_t n, int64_t base,
                    int64_t* out) {
  int64_t next = 0;
  for (int64_t k = first; k < last; ++k) {
    const int64_t position = index[k];
    if (position < next || position >= n) return false;
    out[k] = base + position;
    next = position + 1;
  }
  return true;
}

bool unit_positions(const SparsePlan& plan, const UnitReader& u, int64_t base, int64_t* out) {
  if (plan.form == SparseForm::kBitmask) {
    return count_bits(u.mask, u.numel) == u.count &&
           positions_of_bits(u.mask, u.numel, base, out) == u.count;
  }
  if (plan.form == SparseForm::kUnit16) {
    return copy_positions(Positions16{u.positions}, 0, u.count, u.numel, base, out);
  }
  if (!block_counts_agree(u)) return false;
  int64_t first = 0;
  for (int64_t b = 0; b < u.blocks; ++b) {
    const int64_t begin = b * kSparseBlock;
    const int64_t last = first + block_count(u, b);
    const int64_t n = std::min(kSparseBlock, u.numel - begin);
    if (!copy_positions(u.positions, first, last, n, base + begin, out)) return false;
    first = last;
  }
  return true;
}

}  // namespace

Status sparse_encode_cpu(const SparsePlan& plan, const SparseRule& rule, const void* x,
                         int64_t unit_begin, int64_t unit_end, const int64_t* offsets, void* index,
                         void* values, SparseScratch* scratch) noexcept {
  const bool stream = sparse_streams(plan);
  const auto stream_copy = QVLMEM_SIMD_PICK(sparse_stream_copy);
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    sparse_gather_cpu(plan, rule, x, unit, plan.form == SparseForm::kBitmask, scratch);
    if (sparse_refuses(plan, rule, *scratch)) return Status::kNonFinite;
    if (scratch->count != offsets[unit + 1] - offsets[unit]) return Status::kInvalidArgument;
    char* out = static_cast<char*>(values) + offsets[unit] * plan.element_bytes;
    const size_t bytes = static_cast<size_t>(scratch->count * plan.element_bytes);
    if (stream) {
      stream_copy(scratch->values, bytes, out);
    } else if (bytes > 0) {  // an empty output has no address
      std::memcpy(out, scratch->values, bytes);
    }
    encode_index(plan, *scratch, offsets, unit, static_cast<uint8_t*>(index));
  }
  return Status::kOk;
}

Status sparse_decode_cpu(const SparsePlan& plan, const void* index, const int64_t* offsets,
                         const void* values, int64_t unit_begin, int64_t unit_end,
                         void* y) noexcept {
  const UnitDecoder decoder(plan, index, offsets, values, sparse_streams(plan));
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    char* const to = static_cast<char*>(y) + unit * kSparseUnit * plan.element_bytes;
    if (!decoder.decode(unit, to)) return Status::kCorrupt;
  }
  return Status::kOk;
}

Status sparse_decode_unit_cpu(const SparsePlan& plan, const void* index, const int64_t* offsets,
                              const void* values, int64_t unit, void* y) noexcept {
  const UnitDecoder decoder(plan, index, offsets, values, false);
  return decoder.decode(unit, y) ? Status::kOk : Status::kCorrupt;
}

Status sparse_positions_cpu(const SparsePlan& plan, const void* index, const int64_t* offsets,
                            int64_t unit_begin, int64_t unit_end, int64_t* positions) noexcept {
  const uint8_t* bytes = static_cast<const uint8_t*>(index);
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const UnitReader u = unit_index(plan, bytes, offsets, unit);
    if (!unit_positions(plan, u, unit * kSparseUnit, positions + offsets[unit])) {
      return Status::kCorrupt;
    }
  }
  return Status::kOk;
}

}  // namespace qvlmem
