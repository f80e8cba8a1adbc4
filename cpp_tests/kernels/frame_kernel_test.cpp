// SPDX-License-Identifier: Apache-2.0
#include "kernels/frame/frame.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace qvlmem {
namespace {

FrameHeader example_header() {
  FrameHeader header;
  header.codec = 3;
  header.dtype = DType::kBFloat16;
  header.dims = 2;
  header.shape[0] = 3;
  header.shape[1] = 5;
  header.params = 1;
  header.param[0] = -1;
  header.error[0] = 0.25;
  header.parts = 3;
  header.part[0].dtype = DType::kInt8;
  header.part[0].dims = 2;
  header.part[0].shape[0] = 3;
  header.part[0].shape[1] = 5;
  header.part[1].dtype = DType::kFloat32;
  header.part[1].dims = 1;
  header.part[1].shape[0] = 3;
  header.part[2].dtype = DType::kInt32;
  header.part[2].dims = 1;  // shape [0]: no bytes
  return header;
}

std::vector<uint8_t> example_frame() {
  FrameHeader header = example_header();
  EXPECT_TRUE(lay_out_frame(&header));
  std::vector<uint8_t> frame(header.frame_bytes, 0xaa);
  write_frame_header(header, frame.data());
  seal_frame(frame.data(), header.frame_bytes);
  return frame;
}

// A copy of exactly `size` bytes on the heap, so that a sanitizer sees every byte read behind it.
FrameStatus parse(const std::vector<uint8_t>& bytes, bool check_sum = true) {
  std::vector<uint8_t> exact(bytes.begin(), bytes.end());
  exact.shrink_to_fit();
  FrameHeader header;
  return parse_frame(exact.data(), static_cast<int64_t>(exact.size()), &header, check_sum);
}

TEST(FrameTest, ComesBackAsWritten) {
  const std::vector<uint8_t> frame = example_frame();
  FrameHeader header;
  ASSERT_EQ(parse_frame(frame.data(), frame.size(), &header), FrameStatus::kOk);
  EXPECT_EQ(header.codec, 3);
  EXPECT_EQ(header.dtype, DType::kBFloat16);
  EXPECT_EQ(header.shape[1], 5);
  EXPECT_EQ(header.param[0], -1);
  EXPECT_EQ(header.error[0], 0.25);
  EXPECT_EQ(header.error[1], -1.0);
  EXPECT_EQ(header.part[0].bytes, 15);
  EXPECT_EQ(header.part[1].bytes, 12);
  EXPECT_EQ(header.part[2].bytes, 0);
  for (int p = 0; p < 3; ++p) EXPECT_EQ(header.part[p].offset % kFrameAlignment, 0);
  EXPECT_EQ(header.frame_bytes, static_cast<int64_t>(frame.size()));
}

TEST(FrameTest, EveryCutIsRefused) {
  const std::vector<uint8_t> frame = example_frame();
  for (size_t size = 0; size < frame.size(); ++size) {
    const std::vector<uint8_t> cut(frame.begin(), frame.begin() + size);
    const FrameStatus status = parse(cut);
    EXPECT_EQ(status, size < 56 ? FrameStatus::kTooShort : FrameStatus::kTruncated) << size;
  }
}

TEST(FrameTest, EveryFlippedBitIsRefused) {
  const std::vector<uint8_t> frame = example_frame();
  for (size_t bit = 0; bit < 8 * frame.size(); ++bit) {
    std::vector<uint8_t> flipped = frame;
    flipped[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    EXPECT_NE(parse(flipped), FrameStatus::kOk) << bit;
  }
}

TEST(FrameTest, BehindTheChecksumEveryByteOfTheHeaderIsChecked) {
  // Resealed, what remains of a wrong header must still lie inside the frame.
  const std::vector<uint8_t> frame = example_frame();
  for (size_t at = 0; at < 256; ++at) {
    for (int value : {0, 1, 0x7f, 0x80, 0xff}) {
      std::vector<uint8_t> changed = frame;
      changed[at] = static_cast<uint8_t>(value);
      seal_frame(changed.data(), changed.size());
      FrameHeader header;
      std::vector<uint8_t> exact(changed.begin(), changed.end());
      if (parse_frame(exact.data(), exact.size(), &header) != FrameStatus::kOk) continue;
      for (int p = 0; p < header.parts; ++p) {
        EXPECT_GE(header.part[p].offset, header.header_bytes);
        EXPECT_GE(header.part[p].bytes, 0);
        EXPECT_LE(header.part[p].offset + header.part[p].bytes, static_cast<int64_t>(frame.size()));
      }
    }
  }
}

TEST(FrameTest, SaysWhatIsWrong) {
  std::vector<uint8_t> frame = example_frame();
  std::vector<uint8_t> longer = frame;
  longer.push_back(0);
  EXPECT_EQ(parse(longer), FrameStatus::kTrailingBytes);
  std::vector<uint8_t> newer = frame;
  newer[4] = 2;
  EXPECT_EQ(parse(newer), FrameStatus::kNewerVersion);
  std::vector<uint8_t> other = frame;
  other[0] = 'q';
  EXPECT_EQ(parse(other), FrameStatus::kBadMagic);
  std::vector<uint8_t> damaged = frame;
  damaged[256] ^= 1;  // in a part
  EXPECT_EQ(parse(damaged), FrameStatus::kBadChecksum);
  EXPECT_EQ(parse(damaged, false), FrameStatus::kOk);
}

TEST(FrameTest, SizesThatOverflowAreRefused) {
  FrameHeader header = example_header();
  header.part[0].shape[0] = int64_t{1} << 62;
  header.part[0].shape[1] = 4;
  EXPECT_FALSE(lay_out_frame(&header));
  header = example_header();
  header.part[0].dims = 3;  // no bytes, but strides that no tensor has
  header.part[0].shape[0] = 0;
  header.part[0].shape[1] = header.part[0].shape[2] = int64_t{1} << 40;
  EXPECT_FALSE(lay_out_frame(&header));
  header.part[0].shape[2] = 1;
  EXPECT_TRUE(lay_out_frame(&header));
  EXPECT_EQ(header.part[0].bytes, 0);
  header = example_header();
  header.part[0].shape[0] = -1;
  EXPECT_FALSE(lay_out_frame(&header));
  header = example_header();
  header.parts = kFrameMaxParts + 1;
  EXPECT_FALSE(lay_out_frame(&header));
}

}  // namespace
}  // namespace qvlmem
