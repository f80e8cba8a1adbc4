// SPDX-License-Identifier: Apache-2.0
// Which codec: qvlmem::compress.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "ops/codec/codec.h"

namespace qvlmem {

// method: a codec's name, or auto: the codec whose result holds the fewest bytes among those whose
// measured error, as options.bound counts it, is at most options.max_error (0: bit-exact). NaN,
// infinities and dtypes that the lossy codecs do not take are only ever kept bit-exactly by auto.
// ValueError for an unknown method or an option that is out of range.
CompressedTensorPtr compress(const at::Tensor& x, const std::string& method,
                             const CompressOptions& options);

}  // namespace qvlmem
