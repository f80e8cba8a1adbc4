// SPDX-License-Identifier: Apache-2.0
// The loops in kernels/ on one thread, under each ISA, in cache and beyond it. Bytes a second are
// of the tensor; x_memcpy is the time over that of a memcpy of as many bytes, taken right after.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>

#include "kernels/base/isa.h"
#include "tools/benchmarks/kernel_loops.h"

namespace qvlmem {
namespace {

using MakeLoop = std::function<std::unique_ptr<Loop>(int64_t bytes)>;

struct Case {
  std::string name;
  MakeLoop make;
};

template <class T, class... Arguments>
Case loop(std::string name, Arguments... arguments) {
  return {std::move(name), [=](int64_t bytes) { return std::make_unique<T>(bytes, arguments...); }};
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      loop<QuantizeLoop>("quantize 8, row", 8, int64_t{-1}, false),
      loop<QuantizeLoop>("dequantize 8, row", 8, int64_t{-1}, true),
      loop<QuantizeLoop>("quantize 8, group 128", 8, int64_t{128}, false),
      loop<QuantizeLoop>("dequantize 8, group 128", 8, int64_t{128}, true),
      loop<QuantizeLoop>("quantize 4, group 64", 4, int64_t{64}, false),
      loop<QuantizeLoop>("dequantize 4, group 64", 4, int64_t{64}, true),
      loop<QuantizeLoop>("quantize 4, group 128", 4, int64_t{128}, false),
      loop<QuantizeLoop>("dequantize 4, group 128", 4, int64_t{128}, true),
      loop<HalfLoop>("to fp16", false),
      loop<HalfLoop>("from fp16", true),
      loop<SparseLoop>("sparsify, 80 % zeros", false),
      loop<SparseLoop>("densify, 80 % zeros", true),
      loop<LosslessLoop>("lossless 1 in, bfloat16", 1, false),
      loop<LosslessLoop>("lossless 1 out, bfloat16", 1, true),
      loop<LosslessLoop>("lossless 2 in, bfloat16", 2, false),
      loop<LosslessLoop>("lossless 2 out, bfloat16", 2, true),
      loop<BoundedLoop>("bounded 1 % in, packed", BoundedForm::kPacked, false),
      loop<BoundedLoop>("bounded 1 % out, packed", BoundedForm::kPacked, true),
      loop<BoundedLoop>("bounded 1 % in, coded", BoundedForm::kCoded, false),
      loop<BoundedLoop>("bounded 1 % out, coded", BoundedForm::kCoded, true),
  };
  return all;
}

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds_of_memcpy(int64_t bytes) {
  const Buffer source(bytes), target(bytes);
  double best = 1e9;
  for (int i = 0; i < 7; ++i) {
    const double begin = cpu_seconds();
    std::memcpy(target.get<void>(), source.get<void>(), static_cast<size_t>(bytes));
    benchmark::ClobberMemory();
    best = std::min(best, cpu_seconds() - begin);
  }
  return best;
}

void measure(benchmark::State& state, const MakeLoop& make, Isa isa) {
  force_isa(isa);
  const int64_t bytes = state.range(0);
  const std::unique_ptr<Loop> loop = make(bytes);
  const double begin = cpu_seconds();
  for (auto _ : state) {
    if (!loop->run()) {
      state.SkipWithError("the kernel refused its values");
      break;
    }
    benchmark::ClobberMemory();
  }
  const double seconds = cpu_seconds() - begin;
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["ratio"] = static_cast<double>(bytes) / static_cast<double>(loop->encoded_bytes());
  state.counters["x_memcpy"] =
      seconds / static_cast<double>(state.iterations()) / seconds_of_memcpy(bytes);
}

}  // namespace
}  // namespace qvlmem

int main(int argc, char** argv) {
  using namespace qvlmem;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  for (const Case& one : cases()) {
    for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
      if (!isa_supported(isa)) continue;
      const std::string name = one.name + '/' + isa_name(isa);
      const MakeLoop make = one.make;
      benchmark::RegisterBenchmark(
          name.c_str(), [make, isa](benchmark::State& state) { measure(state, make, isa); })
          ->Arg(int64_t{1} << 18)
          ->Arg(int64_t{1} << 26);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
