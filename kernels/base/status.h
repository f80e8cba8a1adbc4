// SPDX-License-Identifier: Apache-2.0
// What a kernel can answer. Kernels never throw: ops/ turns a Status into an error with words.
#pragma once

#include <cstdint>

namespace qvlmem {

enum class Status : int32_t {
  kOk = 0,
  kInvalidArgument = 1,  // an argument is outside what the function's contract allows
  kOverflow = 2,         // a size does not fit in 63 bits
  kNonFinite = 3,        // the input holds NaN or an infinity and the codec refuses them
  kTruncated = 4,        // encoded bytes end before what they announce
  kCorrupt = 5,          // encoded bytes contradict themselves or the expected sizes
  kUnsupported = 6,      // a newer format version or an unknown field value
  kBoundMissed = 7,      // the codec cannot keep the error within the bound that was asked for
};

constexpr const char* status_text(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kInvalidArgument:
      return "an argument is out of range";
    case Status::kOverflow:
      return "a size overflows 63 bits";
    case Status::kNonFinite:
      return "NaN or infinite values";
    case Status::kTruncated:
      return "the bytes end too early";
    case Status::kCorrupt:
      return "the bytes are damaged";
    case Status::kUnsupported:
      return "the bytes need a newer version";
    case Status::kBoundMissed:
      return "the error bound is tighter than the codec can keep";
  }
  return "unknown status";
}

}  // namespace qvlmem
