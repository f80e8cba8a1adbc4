// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/lossless/lossless_unit.h"
#include "kernels/lossless/planes_simd.h"

namespace qvlmem {
namespace {

class UnitDecoder {
 public:
  UnitDecoder(const LosslessUnit& unit, LosslessMap map, bool stream)
      : n_(unit.scalars),
        plane_count_(unit.plane_count),
        map_(map),
        stream_(stream),
        merge_(QVLMEM_SIMD_PICK(merge_planes)) {}

  Status decode(const uint8_t* in, size_t size, uint8_t* y) {
    const size_t whole = n_ * plane_count_;
    if (size < kEntriesBytes) return Status::kCorrupt;
    if (read_le32(in) == make_entry(LosslessMode::kStored, whole)) {
      if (size != kEntriesBytes + whole) return Status::kCorrupt;
      const uint8_t* scalars = in + kEntriesBytes;
      merge_(&scalars, whole, 1, LosslessMap{}, stream_, y);
      return Status::kOk;
    }
    const Status status = open(in, size);
    if (status == Status::kOk) merge(y);
    return status;
  }

 private:
  struct Plane {
    LosslessMode mode;
    const uint8_t* bytes;  // of the whole plane; of a piece of it where packed or constant
    BytePackReader reader;
  };

  // Finds the planes, checks them and decodes those that have to be decoded whole.
  Status open(const uint8_t* in, size_t size) {
    const uint8_t* entries = in;
    const uint8_t* end = in + size;
    in += kEntriesBytes;
    for (const bool raw : {true, false}) {
      for (size_t b = 0; b < plane_count_; ++b) {
        const uint32_t entry = read_le32(entries + kEntryBytes * b);
        if ((entry_mode(entry) == LosslessMode::kRaw) != raw) continue;
        if (static_cast<size_t>(end - in) < entry_bytes(entry)) return Status::kCorrupt;
        const Status status = open_plane(entry, in, b);
        if (status != Status::kOk) return status;
        in += entry_bytes(entry);
      }
    }
    return in == end ? Status::kOk : Status::kCorrupt;
  }

  Status open_plane(uint32_t entry, const uint8_t* in, size_t b) {
    Plane& p = planes_[b];
    const size_t bytes = entry_bytes(entry);
    uint8_t* piece = pieces_ + b * kPieceScalars;
    p.mode = entry_mode(entry);
    switch (p.mode) {
      case LosslessMode::kRaw:
        p.bytes = in;
        return bytes == n_ ? Status::kOk : Status::kCorrupt;
      case LosslessMode::kConstant:
        if (bytes != 1) return Status::kCorrupt;
        p.bytes = piece;
        std::memset(piece, in[0], kPieceScalars);
        return Status::kOk;
      case LosslessMode::kPacked:
        p.bytes = piece;
        return QVLMEM_SIMD_PICK(byte_unpack_begin)(in, bytes, n_, &p.reader);
      case LosslessMode::kHuffman:
        p.bytes = scratch_ + b * n_;
        return huffman_decode(in, bytes, n_, scratch_ + b * n_);
      case LosslessMode::kStored:
        break;
    }
    return Status::kCorrupt;
  }

  void merge(uint8_t* y) {
    const auto unpack = QVLMEM_SIMD_PICK(byte_unpack);
    for (size_t i = 0; i < n_; i += kPieceScalars) {
      const size_t piece = std::min(kPieceScalars, n_ - i);
      const uint8_t* sources[kMaxPlanes];
      for (size_t b = 0; b < plane_count_; ++b) {
        Plane& p = planes_[b];
        if (p.mode == LosslessMode::kPacked) {
          unpack(&p.reader, piece, pieces_ + b * kPieceScalars);
        }
        const bool whole = p.mode == LosslessMode::kRaw || p.mode == LosslessMode::kHuffman;
        sources[b] = whole ? p.bytes + i : p.bytes;
      }
      merge_(sources, piece, plane_count_, map_, stream_, y + i * plane_count_);
    }
  }

  size_t n_;
  size_t plane_count_;
  LosslessMap map_;
  bool stream_;
  decltype(&portable::merge_planes) merge_;
  Plane planes_[kMaxPlanes];
  alignas(64) uint8_t pieces_[kMaxPlanes * kPieceScalars];
  alignas(64) uint8_t scratch_[kUnitBytes];
};

}  // namespace

Status lossless_decode_cpu(const LosslessPlan& plan, const uint8_t* bytes, int64_t unit_begin,
                           int64_t unit_end, void* y) noexcept {
  const uint8_t* ends = bytes + kLosslessFixedBytes;
  const bool stream = plan.scalars * plan.scalar_bytes >= kStreamBytes;
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t previous =
        unit == 0 ? plan.header_bytes : static_cast<int64_t>(read_le64(ends + 8 * (unit - 1)));
    const int64_t begin = lossless_unit_begin(previous);
    const int64_t size = static_cast<int64_t>(read_le64(ends + 8 * unit)) - begin;
    const LosslessUnit u = lossless_unit(plan, unit);
    UnitDecoder decoder(u, plan.map, stream);
    const Status status = decoder.decode(bytes + begin, static_cast<size_t>(size),
                                         static_cast<uint8_t*>(y) + u.offset);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

}  // namespace qvlmem
