// SPDX-License-Identifier: Apache-2.0
// The frame: a compressed tensor as one run of bytes, to be saved, sent and spilled. docs/format.md
// is the text for readers; here is the one place that knows the layout. All numbers are
// little-endian.
//
//   offset  bytes
//        0      4  magic "QVLM"
//        4      2  format version
//        6      1  codec number            (kernels/frame/codec_id.h)
//        7      1  dtype number            (kernels/base/dtype.h)
//        8      1  dimensions D of the original
//        9      1  params P
//       10      1  parts N
//       11      1  0
//       12      4  header bytes H: where the first part begins
//       16      8  frame bytes
//       24      8  XXH3-64 of the whole frame with these 8 bytes taken as 0
//       32     24  relative, worst row and element error (float64; -1: not measured)
//       56    8 D  shape
//             8 P  params
//                  for each part: 1 dtype number, 1 dimensions d, 6 zero, 8 offset, 8 d shape
//                  0 up to H
//   Parts lie in order, each at the next multiple of 64 behind the one before, gaps 0, nothing
//   behind the last.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/dtype.h"

namespace qvlmem {

constexpr uint16_t kFrameVersion = 1;
constexpr int kFrameMaxDims = 64;
constexpr int kFrameMaxParams = 16;
constexpr int kFrameMaxParts = 8;
constexpr int64_t kFrameAlignment = 64;
constexpr int64_t kFrameFixedBytes = 56;  // in front of the shape

struct FramePart {
  DType dtype = DType::kUInt8;
  int dims = 0;
  int64_t shape[kFrameMaxDims] = {};
  int64_t offset = 0;  // from the frame's first byte
  int64_t bytes = 0;
};

struct FrameHeader {
  uint8_t codec = 0;
  DType dtype = DType::kFloat32;
  int dims = 0;
  int params = 0;
  int parts = 0;
  double error[3] = {-1.0, -1.0, -1.0};
  int64_t shape[kFrameMaxDims] = {};
  int64_t param[kFrameMaxParams] = {};
  FramePart part[kFrameMaxParts];
  int64_t header_bytes = 0;
  int64_t frame_bytes = 0;
  // As they stand in a frame that was read; write_frame_header and seal_frame put their own.
  uint16_t version = kFrameVersion;
  uint64_t checksum = 0;
};

enum class FrameStatus {
  kOk,
  kTooShort,       // fewer bytes than the fixed header
  kBadMagic,       // not a frame at all
  kNewerVersion,   // written by a newer library
  kTruncated,      // ends before the size that it announces
  kTrailingBytes,  // goes on behind the size that it announces
  kBadChecksum,    // damaged
  kBadHeader,      // right checksum, but the header contradicts itself
};
const char* frame_status_text(FrameStatus status) noexcept;

// Places the parts: fills in their offset and bytes, header_bytes and frame_bytes from the rest.
// False where a count or a size is out of range or overflows.
bool lay_out_frame(FrameHeader* header) noexcept;

// Writes everything but the parts' bytes: the header, and zeros into the gaps. REQUIRES:
// lay_out_frame returned true; `frame` has header.frame_bytes bytes. seal_frame must follow once
// the parts are in place.
void write_frame_header(const FrameHeader& header, uint8_t* frame) noexcept;

// The checksum that belongs to the frame's `bytes` bytes, and writes it into the frame. REQUIRES:
// bytes >= kFrameFixedBytes.
uint64_t frame_checksum(const uint8_t* frame, int64_t bytes) noexcept;
void seal_frame(uint8_t* frame, int64_t bytes) noexcept;

// Reads a frame that may be hostile: nothing outside [frame, frame + bytes) is touched, and where
// kOk is returned every offset and size in *header lies inside. Otherwise *header holds what was
// read until then, to be shown but not relied upon. The codec number and the params are not judged.
// check_sum: false to look into a damaged one.
FrameStatus parse_frame(const uint8_t* frame, int64_t bytes, FrameHeader* header,
                        bool check_sum = true) noexcept;

}  // namespace qvlmem
