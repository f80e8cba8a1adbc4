// SPDX-License-Identifier: Apache-2.0
// lossless_encode and lossless_decode without PyTorch, over memory of exact size, so that
// AddressSanitizer sees every step outside.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>

#include "kernels/lossless/lossless.h"
#include "tools/fuzz/fuzz_check.h"

namespace qvlmem {

struct ExactBytes {
  explicit ExactBytes(size_t n) : data(new uint8_t[n]), size(n) {}
  ExactBytes(const uint8_t* bytes, size_t n) : ExactBytes(n) {
    if (n > 0) std::memcpy(data.get(), bytes, n);
  }
  std::unique_ptr<uint8_t[]> data;
  size_t size;
};

inline ExactBytes lossless_encoded(const ExactBytes& x, DType dtype, int level) {
  LosslessPlan plan;
  const int64_t count = static_cast<int64_t>(x.size) / dtype_bytes(dtype);
  FUZZ_CHECK(make_lossless_plan(count, dtype, &plan) == Status::kOk);
  ExactBytes out(plan.bound_bytes);
  lossless_write_header(plan, out.data.get());
  int64_t end = plan.header_bytes;
  for (int64_t unit = 0; unit < plan.unit_count; ++unit) {
    const ExactBytes slot(plan.unit_bound_bytes);
    const int64_t bytes =
        lossless_encode_unit_cpu(plan, x.data.get(), unit, level, false, slot.data.get());
    const int64_t begin = lossless_unit_begin(end);
    end = begin + bytes;
    FUZZ_CHECK(bytes <= plan.unit_bound_bytes && end <= plan.bound_bytes);
    std::memcpy(out.data.get() + begin, slot.data.get(), bytes);
    lossless_write_unit_end(plan, unit, end, out.data.get());
  }
  return ExactBytes(out.data.get(), end);
}

}  // namespace qvlmem
