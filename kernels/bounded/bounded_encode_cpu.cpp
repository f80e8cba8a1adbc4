// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/bounded/bounded_coded_simd.h"
#include "kernels/bounded/bounded_unit.h"
#include "kernels/coding/int_pack_simd.h"

namespace qvlmem {
namespace {

// `low` is chosen by a sample: runs spread over the unit.
constexpr int64_t kSampleRun = 128;
constexpr int64_t kSampleRuns = 16;
static_assert(kSampleRun % static_cast<int64_t>(kIntPackBlock) == 0, "runs must be whole blocks");

// Rare symbols take their share from all others: a code of 11 bits is a 2048th of all, 0.0007 bit a
// value. As an escape, one of the 2048 values of the sample takes about 7 bits more. So a tail is
// better left out where it has more than so many symbols for each of its values in the sample.
constexpr int64_t kRareSymbols = 5;
// Where there are few anyway: not worth an escape.
constexpr int kFewSymbols = 31;

// Where one value in eight is an escape, symbols do not fit the unit.
constexpr int64_t kMaxUnitValues = int64_t{kHuffmanMaxCount};
constexpr int64_t kMaxEscapes = kMaxUnitValues / 8;

// Finds what a coded unit consists of, and writes it.
class UnitCoder {
 public:
  UnitCoder(const Quantizer& quantizer, const BoundedUnit& unit)
      : quantizer_(quantizer), unit_(unit), n_(unit.end - unit.begin) {}

  // The bytes of the unit when coded, or SIZE_MAX where it cannot be; when packed. planes: where
  // its planes go, or nullptr. False where a value has no integer.
  bool scan(uint8_t* planes, int64_t* coded_bytes, int64_t* packed_bytes) {
    const auto measure = QVLMEM_SIMD_PICK(int_pack_measure);
    const auto pack = QVLMEM_SIMD_PICK(int_pack);
    const auto split = QVLMEM_SIMD_PICK(bounded_split);
    alignas(64) int32_t q[kPiece];
    uint8_t headers[kPieceBlocks], low_headers[kPieceBlocks];
    sample();
    std::memset(low_headers, static_cast<int>(low_bits_), sizeof(low_headers));
    *packed_bytes = 1 + blocks_of(n_);
    *coded_bytes = kCodedHeaderBytes + plane_bytes(n_);
    bool fits = true;
    escapes_ = 0;
    for (int64_t i = 0; i < n_; i += kPiece) {
      const int64_t piece = std::min(kPiece, n_ - i);
      const auto blocks = static_cast<size_t>(blocks_of(piece));
      if (!quantizer_.piece(unit_.begin + i, unit_.begin + i + piece, q)) return false;
      *packed_bytes += static_cast<int64_t>(measure(q, blocks, headers));
      if (planes != nullptr) {
        const size_t bytes = 4 * low_bits_ * blocks;
        pack(q, low_headers, blocks, planes, bytes + kIntPackSlack);
        planes += bytes;
      }
      const bool escapes = split(q, blocks * kIntPackBlock, low_bits_, largest_, symbols_ + i);
      if (escapes && fits) fits = keep_escapes(q, i, piece);
    }
    fits = fits && huffman_plan(symbols_, static_cast<size_t>(n_), &huffman_);
    *coded_bytes =
        fits ? *coded_bytes + escape_bytes() + static_cast<int64_t>(huffman_.size) : INT64_MAX;
    return true;
  }

  // Writes all but the planes, which scan has written to where they belong.
  void write(uint8_t* out, size_t room) const {
    out[0] = static_cast<uint8_t>(BoundedMode::kCoded);
    out[1] = static_cast<uint8_t>(low_bits_);
    for (int i = 0; i < 4; ++i) out[2 + i] = static_cast<uint8_t>(escapes_ >> (8 * i));
    uint8_t* at = out + kCodedHeaderBytes + plane_bytes(n_);
    const auto blocks = static_cast<size_t>(blocks_of(escapes_));
    std::memcpy(at, escape_headers_, blocks);
    at += blocks;
    at += QVLMEM_SIMD_PICK(int_pack)(escaped_, escape_headers_, blocks, at,
                                     room - static_cast<size_t>(at - out));
    huffman_encode(huffman_, symbols_, static_cast<size_t>(n_), at);
  }

 private:
  int64_t plane_bytes(int64_t values) const { return 4 * int64_t{low_bits_} * blocks_of(values); }

  // Chooses low_bits_ and largest_.
  void sample() {
    alignas(64) int32_t q[kSampleRuns * kSampleRun];
    const bool whole = n_ <= kSampleRuns * kSampleRun;
    const int64_t runs = whole ? 1 : kSampleRuns, run = whole ? n_ : kSampleRun;
    const int64_t filled = blocks_of(run) * int64_t{kIntPackBlock};
    for (int64_t r = 0; r < runs; ++r) {
      const int64_t begin = unit_.begin + n_ / runs * r;
      quantizer_.piece(begin, begin + run, q + r * filled);
    }
    const int64_t values = runs * filled;
    const auto count = static_cast<size_t>(values);
    const auto bits = static_cast<int64_t>(QVLMEM_SIMD_PICK(bounded_bit_lengths)(q, count));
    // Two bits less than the typical value has.
    const int64_t low = (bits + values / 2) / values - 2;
    low_bits_ = static_cast<uint32_t>(std::clamp<int64_t>(low, 0, kMaxLowBits));
    QVLMEM_SIMD_PICK(bounded_split)(q, count, low_bits_, UINT8_MAX, symbols_);
    uint32_t counts[256] = {};
    for (size_t i = 0; i < count; ++i) ++counts[symbols_[i]];
    // The tail that gains most by not being coded.
    int64_t gain = 0, most = 0;
    largest_ = UINT8_MAX;
    for (int symbol = UINT8_MAX; symbol > kFewSymbols; --symbol) {
      gain += 1 - kRareSymbols * int64_t{counts[symbol]};
      if (gain <= most) continue;
      most = gain;
      largest_ = static_cast<uint8_t>(symbol - 1);
    }
  }

  // Takes the escapes of a piece, whose symbols begin at `begin`. False where there are too many.
  bool keep_escapes(const int32_t* q, int64_t begin, int64_t piece) {
    for_each_zero(symbols_ + begin, static_cast<size_t>(piece), [&](size_t i) {
      if (escapes_ < kMaxEscapes) escaped_[escapes_] = q[i];
      ++escapes_;
    });
    return escapes_ <= n_ / 8;
  }

  // Bytes of the escapes, whose last block this fills up.
  int64_t escape_bytes() {
    const int64_t blocks = blocks_of(escapes_);
    if (blocks == 0) return 0;
    std::fill(escaped_ + escapes_, escaped_ + blocks * int64_t{kIntPackBlock},
              escaped_[escapes_ - 1]);
    return blocks + static_cast<int64_t>(QVLMEM_SIMD_PICK(int_pack_measure)(
                        escaped_, static_cast<size_t>(blocks), escape_headers_));
  }

  const Quantizer& quantizer_;
  const BoundedUnit unit_;
  const int64_t n_;
  uint32_t low_bits_;
  uint8_t largest_;  // symbol
  int64_t escapes_;
  HuffmanPlan huffman_;
  uint8_t escape_headers_[kMaxEscapes / kIntPackBlock + 1];
  alignas(64) int32_t escaped_[kMaxEscapes + kIntPackBlock];
  alignas(64) uint8_t symbols_[kMaxUnitValues + kIntPackBlock];
};

}  // namespace

Status pack_unit(const Quantizer& quantizer, const BoundedUnit& unit, uint8_t* out, int64_t size) {
  const auto measure = QVLMEM_SIMD_PICK(int_pack_measure);
  const auto pack = QVLMEM_SIMD_PICK(int_pack);
  alignas(64) int32_t q[kPiece];
  const int64_t blocks = blocks_of(unit.end - unit.begin);
  if (size < 1 + blocks) return Status::kInvalidArgument;
  uint8_t* headers = out + 1;
  uint8_t* payload = headers + blocks;
  auto room = static_cast<size_t>(size - 1 - blocks);
  out[0] = static_cast<uint8_t>(BoundedMode::kPacked);
  for (int64_t begin = unit.begin; begin < unit.end; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, unit.end);
    if (!quantizer.piece(begin, end, q)) return Status::kInvalidArgument;
    const auto count = static_cast<size_t>(blocks_of(end - begin));
    measure(q, count, headers);
    const size_t bytes = pack(q, headers, count, payload, room);
    if (bytes > room) return Status::kInvalidArgument;
    headers += count;
    payload += bytes;
    room -= bytes;
  }
  return room == 0 ? Status::kOk : Status::kInvalidArgument;
}

Status bounded_encode_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                          const int64_t* offset, int64_t unit_begin, int64_t unit_end,
                          uint8_t* packed) noexcept {
  const Quantizer quantizer(plan, x, dtype, step);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const Status status =
        pack_unit(quantizer, bounded_unit(plan, u), packed + offset[u], offset[u + 1] - offset[u]);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

Status bounded_estimate_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                            int64_t unit, int64_t* coded_bytes) noexcept {
  const Quantizer quantizer(plan, x, dtype, step);
  UnitCoder coder(quantizer, bounded_unit(plan, unit));
  int64_t packed_bytes;
  return coder.scan(nullptr, coded_bytes, &packed_bytes) ? Status::kOk : Status::kInvalidArgument;
}

Status bounded_code_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                        int64_t unit, uint8_t* out, int64_t* bytes) noexcept {
  const Quantizer quantizer(plan, x, dtype, step);
  UnitCoder coder(quantizer, bounded_unit(plan, unit));
  int64_t coded_bytes, packed_bytes;
  if (!coder.scan(out + kCodedHeaderBytes, &coded_bytes, &packed_bytes)) {
    return Status::kInvalidArgument;
  }
  *bytes = std::min(coded_bytes, packed_bytes);
  if (coded_bytes >= packed_bytes) {
    return pack_unit(quantizer, bounded_unit(plan, unit), out, packed_bytes);
  }
  coder.write(out, static_cast<size_t>(bounded_unit_bound(plan, unit)));
  return Status::kOk;
}

}  // namespace qvlmem
