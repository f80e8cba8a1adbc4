// SPDX-License-Identifier: Apache-2.0
// The codecs' numbers, as they are written into frames (docs/format.md): never renumber.
#pragma once

#include <cstdint>

namespace qvlmem {

enum class CodecId : uint8_t {
  kNone = 0,
  kLossless = 1,
  kFp16 = 2,
  kInt8 = 3,
  kInt4 = 4,
  kBounded = 5,
  kSvd = 6,
  kSparse = 7,
};

// The codec's name in the public interface; nullptr for a number that stands for none.
constexpr const char* codec_name(CodecId id) {
  switch (id) {
    case CodecId::kNone:
      return "none";
    case CodecId::kLossless:
      return "lossless";
    case CodecId::kFp16:
      return "fp16";
    case CodecId::kInt8:
      return "int8";
    case CodecId::kInt4:
      return "int4";
    case CodecId::kBounded:
      return "bounded";
    case CodecId::kSvd:
      return "svd";
    case CodecId::kSparse:
      return "sparse";
  }
  return nullptr;
}

}  // namespace qvlmem
