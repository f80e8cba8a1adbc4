// SPDX-License-Identifier: Apache-2.0
#include "kernels/frame/frame.h"

#include <cstring>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "kernels/base/checked.h"

namespace qvlmem {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are written as memory lies");

constexpr char kMagic[4] = {'Q', 'V', 'L', 'M'};
constexpr int64_t kChecksumOffset = 24;
constexpr int64_t kPartBytes = 16;  // of a part's entry, without its shape

int64_t aligned(int64_t offset) {
  return (offset + kFrameAlignment - 1) / kFrameAlignment * kFrameAlignment;
}

bool known_dtype(int number) { return number < kDTypeCount; }

// Bytes of a dense tensor; false where a size is negative, or they or the strides overflow (for
// which a size of 0 counts as 1, so that an empty tensor's can, too).
bool dense_bytes(DType dtype, const int64_t* shape, int dims, int64_t* bytes) {
  int64_t largest_stride = 1;
  bool empty = false;
  for (int d = 0; d < dims; ++d) {
    empty = empty || shape[d] == 0;
    if (!checked_mul(largest_stride, shape[d] == 0 ? 1 : shape[d], &largest_stride)) return false;
  }
  *bytes = 0;
  return empty || checked_mul(largest_stride, dtype_bytes(dtype), bytes);
}

class Reader {
 public:
  Reader(const uint8_t* bytes, int64_t begin, int64_t end) : bytes_(bytes), at_(begin), end_(end) {}

  template <class T>
  bool read(T* value) {
    if (end_ - at_ < static_cast<int64_t>(sizeof(T))) return false;
    std::memcpy(value, bytes_ + at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }

  bool zeros_until(int64_t end) {
    if (end < at_ || end > end_) return false;
    for (; at_ < end; ++at_) {
      if (bytes_[at_] != 0) return false;
    }
    return true;
  }

 private:
  const uint8_t* bytes_;
  int64_t at_, end_;
};

class Writer {
 public:
  explicit Writer(uint8_t* bytes) : bytes_(bytes) {}

  template <class T>
  void write(T value) {
    std::memcpy(bytes_ + at_, &value, sizeof(T));
    at_ += sizeof(T);
  }
  void zeros_until(int64_t end) {
    std::memset(bytes_ + at_, 0, static_cast<size_t>(end - at_));
    at_ = end;
  }
  void skip(int64_t bytes) { at_ += bytes; }

 private:
  uint8_t* bytes_;
  int64_t at_ = 0;
};

bool read_part(Reader* reader, FramePart* part) {
  uint8_t dtype, dims, zero[6];
  if (!reader->read(&dtype) || !reader->read(&dims) || !reader->read(&zero)) return false;
  if (!known_dtype(dtype) || dims > kFrameMaxDims) return false;
  for (const uint8_t byte : zero) {
    if (byte != 0) return false;
  }
  part->dtype = static_cast<DType>(dtype);
  part->dims = dims;
  if (!reader->read(&part->offset)) return false;
  for (int d = 0; d < dims; ++d) {
    if (!reader->read(&part->shape[d])) return false;
  }
  return true;
}

bool parse_body(const uint8_t* frame, int64_t bytes, FrameHeader* header) {
  Reader reader(frame, kFrameFixedBytes, header->header_bytes);
  for (int d = 0; d < header->dims; ++d) {
    if (!reader.read(&header->shape[d])) return false;
  }
  for (const double error : header->error) {
    if (!(error >= 0.0 || error == -1.0)) return false;
  }
  int64_t original_bytes;
  if (!dense_bytes(header->dtype, header->shape, header->dims, &original_bytes)) return false;
  for (int p = 0; p < header->params; ++p) {
    if (!reader.read(&header->param[p])) return false;
  }
  for (int p = 0; p < header->parts; ++p) {
    if (!read_part(&reader, &header->part[p])) return false;
  }
  if (!reader.zeros_until(header->header_bytes)) return false;
  // Laid out anew, the same header must come out: offsets, sizes and gaps leave no choice.
  FrameHeader expected = *header;
  if (!lay_out_frame(&expected) || expected.frame_bytes != bytes ||
      expected.header_bytes != header->header_bytes) {
    return false;
  }
  int64_t end = header->header_bytes;
  for (int p = 0; p < header->parts; ++p) {
    if (header->part[p].offset != expected.part[p].offset) return false;
    if (!Reader(frame, end, bytes).zeros_until(expected.part[p].offset)) return false;
    end = expected.part[p].offset + expected.part[p].bytes;
  }
  *header = expected;
  return true;
}

}  // namespace

const char* frame_status_text(FrameStatus status) noexcept {
  switch (status) {
    case FrameStatus::kOk:
      return "ok";
    case FrameStatus::kTooShort:
      return "cut short: fewer bytes than a header has";
    case FrameStatus::kBadMagic:
      return "not a frame: the magic bytes are missing";
    case FrameStatus::kNewerVersion:
      return "written in a newer format version than this library reads";
    case FrameStatus::kTruncated:
      return "cut short: it ends before the size in its header";
    case FrameStatus::kTrailingBytes:
      return "there are bytes after its end";
    case FrameStatus::kBadChecksum:
      return "damaged: the checksum does not match";
    case FrameStatus::kBadHeader:
      return "damaged: the sizes in its header contradict one another";
  }
  return "unknown frame status";
}

bool lay_out_frame(FrameHeader* header) noexcept {
  if (header->dims < 0 || header->dims > kFrameMaxDims || header->params < 0 ||
      header->params > kFrameMaxParams || header->parts < 0 || header->parts > kFrameMaxParts) {
    return false;
  }
  int64_t at = kFrameFixedBytes + 8 * (header->dims + header->params);
  for (int p = 0; p < header->parts; ++p) {
    if (header->part[p].dims < 0 || header->part[p].dims > kFrameMaxDims) return false;
    at += kPartBytes + 8 * header->part[p].dims;
  }
  header->header_bytes = aligned(at);
  int64_t end = header->header_bytes;
  for (int p = 0; p < header->parts; ++p) {
    FramePart& part = header->part[p];
    if (!dense_bytes(part.dtype, part.shape, part.dims, &part.bytes)) return false;
    if (!checked_add(end, kFrameAlignment, &part.offset)) return false;
    part.offset = aligned(end);
    if (!checked_add(part.offset, part.bytes, &end)) return false;
  }
  header->frame_bytes = end;
  return true;
}

void write_frame_header(const FrameHeader& header, uint8_t* frame) noexcept {
  Writer writer(frame);
  for (const char c : kMagic) writer.write(c);
  writer.write(kFrameVersion);
  writer.write(header.codec);
  writer.write(static_cast<uint8_t>(header.dtype));
  writer.write(static_cast<uint8_t>(header.dims));
  writer.write(static_cast<uint8_t>(header.params));
  writer.write(static_cast<uint8_t>(header.parts));
  writer.write(uint8_t{0});
  writer.write(static_cast<uint32_t>(header.header_bytes));
  writer.write(header.frame_bytes);
  writer.write(uint64_t{0});  // the checksum: seal_frame
  for (const double error : header.error) writer.write(error);
  for (int d = 0; d < header.dims; ++d) writer.write(header.shape[d]);
  for (int p = 0; p < header.params; ++p) writer.write(header.param[p]);
  for (int p = 0; p < header.parts; ++p) {
    const FramePart& part = header.part[p];
    writer.write(static_cast<uint8_t>(part.dtype));
    writer.write(static_cast<uint8_t>(part.dims));
    for (int zero = 0; zero < 6; ++zero) writer.write(uint8_t{0});
    writer.write(part.offset);
    for (int d = 0; d < part.dims; ++d) writer.write(part.shape[d]);
  }
  writer.zeros_until(header.header_bytes);
  for (int p = 0; p < header.parts; ++p) {
    writer.zeros_until(header.part[p].offset);
    writer.skip(header.part[p].bytes);
  }
}

uint64_t frame_checksum(const uint8_t* frame, int64_t bytes) noexcept {
  const uint8_t zeros[8] = {};
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  XXH3_64bits_update(&state, frame, kChecksumOffset);
  XXH3_64bits_update(&state, zeros, sizeof(zeros));
  XXH3_64bits_update(&state, frame + kChecksumOffset + 8,
                     static_cast<size_t>(bytes - kChecksumOffset - 8));
  return XXH3_64bits_digest(&state);
}

void seal_frame(uint8_t* frame, int64_t bytes) noexcept {
  const uint64_t sum = frame_checksum(frame, bytes);
  std::memcpy(frame + kChecksumOffset, &sum, sizeof(sum));
}

FrameStatus parse_frame(const uint8_t* frame, int64_t bytes, FrameHeader* header,
                        bool check_sum) noexcept {
  *header = FrameHeader{};
  if (bytes < static_cast<int64_t>(sizeof(kMagic))) return FrameStatus::kTooShort;
  if (std::memcmp(frame, kMagic, sizeof(kMagic)) != 0) return FrameStatus::kBadMagic;
  if (bytes < kFrameFixedBytes) return FrameStatus::kTooShort;
  Reader reader(frame, sizeof(kMagic), kFrameFixedBytes);
  uint8_t dtype = 0, dims = 0, params = 0, parts = 0, zero = 0;
  uint32_t header_bytes = 0;
  reader.read(&header->version);
  reader.read(&header->codec);
  reader.read(&dtype);
  reader.read(&dims);
  reader.read(&params);
  reader.read(&parts);
  reader.read(&zero);
  reader.read(&header_bytes);
  reader.read(&header->frame_bytes);
  reader.read(&header->checksum);
  reader.read(&header->error);
  if (header->version > kFrameVersion) return FrameStatus::kNewerVersion;
  if (header->frame_bytes > bytes) return FrameStatus::kTruncated;
  if (header->frame_bytes >= kFrameFixedBytes && header->frame_bytes < bytes) {
    return FrameStatus::kTrailingBytes;
  }
  if (check_sum && header->checksum != frame_checksum(frame, bytes))
    return FrameStatus::kBadChecksum;
  header->header_bytes = header_bytes;
  if (header->version != kFrameVersion || header->frame_bytes != bytes || header_bytes > bytes ||
      !known_dtype(dtype) || dims > kFrameMaxDims || params > kFrameMaxParams ||
      parts > kFrameMaxParts || zero != 0) {
    return FrameStatus::kBadHeader;
  }
  header->dtype = static_cast<DType>(dtype);
  header->dims = dims;
  header->params = params;
  header->parts = parts;
  return parse_body(frame, bytes, header) ? FrameStatus::kOk : FrameStatus::kBadHeader;
}

}  // namespace qvlmem
