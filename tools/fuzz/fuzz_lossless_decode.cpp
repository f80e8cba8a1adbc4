// SPDX-License-Identifier: Apache-2.0
// Any bytes through lossless decoding. Streams that the encoder made are the seeds; a mutator that
// puts the header and the ends of units right lets changes reach the decoders of planes.
#include <random>

#include "kernels/base/isa.h"
#include "tools/fuzz/lossless_buffers.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using namespace qvlmem;
using Random = std::minstd_rand;

constexpr int64_t kLargestDecoded = 4 << 20;  // bytes

int64_t below(Random& random, int64_t end) { return static_cast<int64_t>(random() % end); }

// What the encoder makes of a few hundred numbers around 0.
ExactBytes seed_stream(Random& random) {
  const DType dtype = static_cast<DType>(below(random, kDTypeCount));
  ExactBytes x(below(random, 600) * dtype_bytes(dtype));
  std::normal_distribution<double> normal(0.0, 6.0);
  for (size_t i = 0; i < x.size; ++i) x.data[i] = static_cast<uint8_t>(normal(random) + 120);
  return lossless_encoded(x, dtype, static_cast<int>(1 + below(random, 2)));
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  Random random(seed);
  LosslessPlan plan;
  const Status status = lossless_read_plan(data, static_cast<int64_t>(size), &plan);
  if (status != Status::kOk || below(random, 64) == 0) {
    const ExactBytes stream = seed_stream(random);
    if (stream.size > max_size) return size;
    std::memcpy(data, stream.data.get(), stream.size);
    return stream.size;
  }
  if (below(random, 16) == 0) return LLVMFuzzerMutate(data, size, max_size);
  if (plan.unit_count == 0) return size;
  // The first unit changes, in place or in length; where it is the only one its end follows.
  const size_t begin = static_cast<size_t>(plan.header_bytes);
  const size_t room = plan.unit_count == 1 ? max_size - begin : size - begin;
  const size_t entries = std::min(size - begin, static_cast<size_t>(kLosslessEntriesBytes));
  if (below(random, 4) == 0) {
    LLVMFuzzerMutate(data + begin, entries, entries);
    return size;
  }
  const size_t bytes = LLVMFuzzerMutate(data + begin, size - begin, room);
  if (plan.unit_count != 1) return size;
  lossless_write_unit_end(plan, 0, static_cast<int64_t>(begin + bytes), data);
  return begin + bytes;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ExactBytes bytes(data, size);
  LosslessPlan plan;
  if (lossless_read_plan(bytes.data.get(), static_cast<int64_t>(size), &plan) != Status::kOk) {
    return 0;
  }
  const int64_t total = plan.scalars * plan.scalar_bytes;
  if (total > kLargestDecoded) return 0;
  // Every ISA accepts the same bytes and gives the same values.
  ExactBytes reference(total);
  Status reference_status = Status::kOk;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (!force_isa(isa)) continue;
    ExactBytes y(total);
    const Status status =
        lossless_decode_cpu(plan, bytes.data.get(), 0, plan.unit_count, y.data.get());
    if (isa == Isa::kPortable) {
      reference = std::move(y);
      reference_status = status;
      continue;
    }
    FUZZ_CHECK(status == reference_status);
    if (status == Status::kOk) {
      FUZZ_CHECK(std::equal(y.data.get(), y.data.get() + total, reference.data.get()));
    }
  }
  return 0;
}
