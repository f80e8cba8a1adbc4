// SPDX-License-Identifier: Apache-2.0
// Any values of any dtype through lossless encoding and back. The first three bytes of the input
// choose the dtype, the level and how often the rest is repeated; so inputs reach several units.
#include "kernels/base/isa.h"
#include "tools/fuzz/lossless_buffers.h"

using namespace qvlmem;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const DType dtype = static_cast<DType>(data[0] % kDTypeCount);
  const int level = 1 + data[1] % 2;
  const size_t repeats = data[2] < 16 ? size_t{1} << data[2] : 1;
  const size_t length = size - 3;
  if (length * repeats > size_t{1} << 19) return 0;
  ExactBytes x(length * repeats / dtype_bytes(dtype) * dtype_bytes(dtype));
  // Repeats differ in one byte, or blocks would be copies of one another.
  for (size_t i = 0; i < x.size; ++i) {
    const size_t repeat = i / length;
    x.data[i] = data[3 + i % length];
    if (i % length == repeat % length) x.data[i] = static_cast<uint8_t>(x.data[i] + repeat);
  }
  ExactBytes reference(0);
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (!force_isa(isa)) continue;
    ExactBytes bytes = lossless_encoded(x, dtype, level);
    LosslessPlan plan;
    FUZZ_CHECK(lossless_read_plan(bytes.data.get(), static_cast<int64_t>(bytes.size), &plan) ==
               Status::kOk);
    ExactBytes y(x.size);
    FUZZ_CHECK(lossless_decode_cpu(plan, bytes.data.get(), 0, plan.unit_count, y.data.get()) ==
               Status::kOk);
    FUZZ_CHECK(std::equal(y.data.get(), y.data.get() + y.size, x.data.get()));
    if (isa == Isa::kPortable) {
      reference = std::move(bytes);
    } else {
      FUZZ_CHECK(bytes.size == reference.size);
      FUZZ_CHECK(std::equal(bytes.data.get(), bytes.data.get() + bytes.size, reference.data.get()));
    }
  }
  return 0;
}
