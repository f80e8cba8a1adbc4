// SPDX-License-Identifier: Apache-2.0
// What calling an operator on a small tensor takes from C++, beside the cheapest one of PyTorch.
// QVLMEM_LIBRARY names libqvlmem.so.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <tuple>

namespace {

using Quantize = std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor&, int64_t, bool,
                                                                int64_t, std::optional<int64_t>);

// 4 KiB.
at::Tensor small_tensor() { return at::randn({8, 128}); }

void neg(benchmark::State& state) {
  const c10::InferenceMode guard;
  const at::Tensor x = small_tensor();
  for (auto _ : state) benchmark::DoNotOptimize(at::neg(x));
}
BENCHMARK(neg);

// Arguments: bits, group_size.
void quantize(benchmark::State& state) {
  const c10::InferenceMode guard;
  const at::Tensor x = small_tensor();
  const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("qvlmem::quantize", "").typed<Quantize>();
  for (auto _ : state) {
    benchmark::DoNotOptimize(op.call(x, state.range(0), true, state.range(1), std::nullopt));
  }
}
BENCHMARK(quantize)->Args({8, 0})->Args({8, -1})->Args({8, 128})->Args({4, 64})->Args({4, 128});

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const char* library = std::getenv("QVLMEM_LIBRARY");
  if (library == nullptr || dlopen(library, RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    std::fprintf(stderr, "bench_calls: error: QVLMEM_LIBRARY names no library that loads: %s\n",
                 library == nullptr ? "it is not set" : dlerror());
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
