// SPDX-License-Identifier: Apache-2.0
#include "ops/codec/codec_table.h"

#include "ops/codec/codec.h"

namespace qvlmem {

const std::vector<const Codec*>& codec_table() {
  static const std::vector<const Codec*> table = {
      &kNoneCodec, &kLosslessCodec, &kFp16Codec,    &kInt8Codec,
      &kInt4Codec, &kSparseCodec,   &kBoundedCodec, &kSvdCodec,
  };
  return table;
}

const Codec* find_codec(const std::string& name) {
  for (const Codec* codec : codec_table()) {
    if (name == codec->name) return codec;
  }
  return nullptr;
}

const Codec* find_codec(CodecId id) {
  for (const Codec* codec : codec_table()) {
    if (id == codec->id) return codec;
  }
  return nullptr;
}

std::string codec_names() {
  std::string names = "auto";
  for (const Codec* codec : codec_table()) names += std::string(", ") + codec->name;
  return names;
}

Bound parse_bound(const char* op, const std::string& text) {
  if (text == "tensor") return Bound::kTensor;
  if (text == "row") return Bound::kRow;
  if (text == "element") return Bound::kElement;
  TORCH_CHECK_VALUE(false, "qvlmem::", op, ": expected bound to be tensor, row or element, got '",
                    text, "'");
}

double error_within(Bound bound, const CompressionError& error) {
  switch (bound) {
    case Bound::kRow:
      return error.worst_row;
    case Bound::kElement:
      return error.element;
    case Bound::kTensor:
      break;
  }
  return error.relative;
}

void check_payload_size(const char* codec, const Payload& payload, size_t params, size_t parts) {
  TORCH_CHECK_VALUE(payload.params.size() == params && payload.parts.size() == parts,
                    "qvlmem::", codec, ": expected ", params, " params and ", parts, " parts, got ",
                    payload.params.size(), " and ", payload.parts.size());
}

}  // namespace qvlmem
