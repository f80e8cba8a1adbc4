// SPDX-License-Identifier: Apache-2.0
// The rows of the codec table, each defined in the ops source of its codec.
#pragma once

namespace qvlmem {

struct Codec;

extern const Codec kNoneCodec;
extern const Codec kLosslessCodec;
extern const Codec kFp16Codec;
extern const Codec kInt8Codec;
extern const Codec kInt4Codec;
extern const Codec kSvdCodec;
extern const Codec kSparseCodec;
extern const Codec kBoundedCodec;

}  // namespace qvlmem
