// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/lossless/lossless_unit.h"
#include "kernels/lossless/planes_simd.h"

namespace qvlmem {
namespace {

// Room for all planes of a unit when packed.
constexpr size_t kScratchBytes = byte_pack_bound(kUnitBytes) + kMaxPlanes * 4 * kBytePackBlock;

void copy_bytes(const uint8_t* from, size_t bytes, bool stream, uint8_t* to) {
  QVLMEM_SIMD_PICK(split_planes)(from, bytes, 1, LosslessMap{}, stream ? 1 : 0, &to);
}

class UnitEncoder {
 public:
  UnitEncoder(const LosslessUnit& unit, LosslessMap map, const uint8_t* scalars, int level,
              bool stream, uint8_t* out)
      : n_(unit.scalars),
        plane_count_(unit.plane_count),
        map_(map),
        level_(level),
        stream_(stream),
        scalars_(scalars),
        out_(out),
        split_(QVLMEM_SIMD_PICK(split_planes)) {}

  size_t encode() {
    choose();
    uint8_t* end = out_ + kEntriesBytes;  // of what is in its place
    uint32_t raw_mask = 0;
    for (size_t b = 0; b < plane_count_; ++b) {
      Plane& p = planes_[b];
      if (p.mode == LosslessMode::kRaw) {
        p.bytes = n_;
        p.place = end;
        end += n_;
        raw_mask |= 1u << b;
      } else {
        p.place = scratch_ + b * byte_pack_bound(n_);
        p.writer = byte_pack_begin(n_, p.place);
      }
    }
    if (raw_mask + 1 == 1u << plane_count_) return store();
    fill(raw_mask);
    size_t size = static_cast<size_t>(end - out_);
    for (size_t b = 0; b < plane_count_; ++b) {
      if (planes_[b].mode != LosslessMode::kRaw) size += measure(&planes_[b]);
    }
    if (size >= kEntriesBytes + n_ * plane_count_) return store();
    write_planes(end);
    return size;
  }

 private:
  struct Plane {
    LosslessMode mode;
    size_t bytes;    // when coded
    uint8_t* place;  // where it is, packed or as it is
    BytePackWriter writer;
    HuffmanPlan huffman;
  };

  void choose() {
    uint8_t* samples[kMaxPlanes];
    for (size_t b = 0; b < plane_count_; ++b) samples[b] = scratch_ + b * kSampleScalars;
    size_t sampled = 0;
    const size_t runs = n_ <= kSampleScalars ? 1 : kSampleRuns;
    const size_t run = runs == 1 ? n_ : kSampleRun;
    for (size_t r = 0; r < runs; ++r, sampled += run) {
      split_(scalars_ + n_ / runs * r * plane_count_, run, plane_count_, map_, 0, samples);
      for (size_t b = 0; b < plane_count_; ++b) samples[b] += run;
    }
    for (size_t b = 0; b < plane_count_; ++b) {
      planes_[b].mode = best_mode(samples[b] - sampled, sampled);
    }
  }

  LosslessMode best_mode(const uint8_t* bytes, size_t n) const {
    size_t best = worthwhile(n);
    LosslessMode mode = LosslessMode::kRaw;
    const size_t packed = QVLMEM_SIMD_PICK(byte_pack_measure)(bytes, n);
    if (packed < best) {
      best = packed;
      mode = LosslessMode::kPacked;
    }
    if (level_ == 2 && huffman_measure(bytes, n) < best) mode = LosslessMode::kHuffman;
    return mode;
  }

  // Splits the scalars: raw planes come to their places in the output, others to theirs in scratch.
  void fill(uint32_t raw_mask) {
    const auto pack = QVLMEM_SIMD_PICK(byte_pack);
    for (size_t i = 0; i < n_; i += kPieceScalars) {
      const size_t piece = std::min(kPieceScalars, n_ - i);
      const uint8_t* from = scalars_ + i * plane_count_;
      prefetch_page_ahead(from, piece * plane_count_);
      uint8_t* targets[kMaxPlanes];
      for (size_t b = 0; b < plane_count_; ++b) {
        const bool packed = planes_[b].mode == LosslessMode::kPacked;
        targets[b] = packed ? piece_ + b * kPieceScalars : planes_[b].place + i;
      }
      split_(from, piece, plane_count_, map_, stream_ ? raw_mask : 0, targets);
      for (size_t b = 0; b < plane_count_; ++b) {
        if (planes_[b].mode == LosslessMode::kPacked) pack(targets[b], piece, &planes_[b].writer);
      }
    }
  }

  // Finds how many bytes a plane in scratch takes when coded; it may turn out to be constant.
  size_t measure(Plane* p) {
    if (p->mode == LosslessMode::kPacked) {
      p->bytes = static_cast<size_t>(p->writer.planes - p->place);
      const uint8_t* bases = byte_pack_begin(n_, p->place).bases;
      const size_t blocks = byte_pack_blocks(n_);
      if (p->bytes == byte_pack_header_bytes(n_) &&
          std::memcmp(bases, bases + 1, blocks - 1) == 0) {
        p->place[0] = bases[0];
        p->mode = LosslessMode::kConstant;
      }
    } else if (huffman_plan(p->place, n_, &p->huffman)) {
      p->bytes = p->huffman.size;
    } else {
      p->mode = LosslessMode::kConstant;
    }
    if (p->mode == LosslessMode::kConstant) p->bytes = 1;
    return p->bytes;
  }

  // The entries, and the planes that are in scratch, from `end` on.
  void write_planes(uint8_t* end) {
    std::memset(out_, 0, kEntriesBytes);
    for (size_t b = 0; b < plane_count_; ++b) {
      const Plane& p = planes_[b];
      write_le32(make_entry(p.mode, p.bytes), out_ + kEntryBytes * b);
      if (p.mode == LosslessMode::kRaw) continue;
      if (p.mode == LosslessMode::kHuffman) {
        huffman_encode(p.huffman, p.place, n_, end);
      } else {
        copy(p.place, p.bytes, end);
      }
      end += p.bytes;
    }
  }

  size_t store() {
    const size_t bytes = n_ * plane_count_;
    std::memset(out_, 0, kEntriesBytes);
    write_le32(make_entry(LosslessMode::kStored, bytes), out_);
    copy(scalars_, bytes, out_ + kEntriesBytes);
    return kEntriesBytes + bytes;
  }

  void copy(const uint8_t* from, size_t bytes, uint8_t* to) {
    copy_bytes(from, bytes, stream_, to);
  }

  size_t n_;
  size_t plane_count_;
  LosslessMap map_;
  int level_;
  bool stream_;
  const uint8_t* scalars_;
  uint8_t* out_;
  decltype(&portable::split_planes) split_;
  Plane planes_[kMaxPlanes];
  alignas(64) uint8_t piece_[kMaxPlanes * kPieceScalars];
  alignas(64) uint8_t scratch_[kScratchBytes];
};

}  // namespace

int64_t lossless_encode_unit_cpu(const LosslessPlan& plan, const void* x, int64_t unit, int level,
                                 bool stream, uint8_t* out) noexcept {
  const LosslessUnit u = lossless_unit(plan, unit);
  const uint8_t* scalars = static_cast<const uint8_t*>(x) + u.offset;
  UnitEncoder encoder(u, plan.map, scalars, level, stream, out);
  return static_cast<int64_t>(encoder.encode());
}

void lossless_copy_unit_cpu(const LosslessPlan& plan, const uint8_t* unit, int64_t bytes,
                            bool stream, uint8_t* out, const void* x, int64_t next) noexcept {
  const auto size = static_cast<size_t>(bytes);
  size_t ahead = 0, ahead_end = 0;
  if (next < plan.unit_count) {
    const LosslessUnit u = lossless_unit(plan, next);
    ahead = u.offset;
    ahead_end = u.offset + u.scalars * u.plane_count;
  }
  const size_t share = 2 * kPieceScalars;
  for (size_t i = 0; i < size; i += kPieceScalars) {
    for (const size_t stop = std::min(ahead + share, ahead_end); ahead < stop; ahead += 64) {
      __builtin_prefetch(static_cast<const uint8_t*>(x) + ahead, 0, 2);
    }
    copy_bytes(unit + i, std::min(kPieceScalars, size - i), stream, out + i);
  }
}

}  // namespace qvlmem
