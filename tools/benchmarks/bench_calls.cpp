// SPDX-License-Identifier: Apache-2.0
// What calling an operator on a small tensor takes from C++, beside the cheapest one of PyTorch:
// x_neg is the time over that of at::neg, whose calls take turns with ours, and the goal is 3.
// QVLMEM_LIBRARY names libqvlmem.so.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <tuple>

namespace {

using Quantize = std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor&, int64_t, bool,
                                                                int64_t, std::optional<int64_t>);

constexpr double kMostTimesNeg = 3;
constexpr int kTurn = 64;  // calls

template <class Call>
double seconds_of_a_turn(const Call& call) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kTurn; ++i) benchmark::DoNotOptimize(call());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

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
  double ours = 0, neg = 0;
  for (auto _ : state) {
    neg += seconds_of_a_turn([&] { return at::neg(x); });
    const double turn = seconds_of_a_turn(
        [&] { return op.call(x, state.range(0), true, state.range(1), std::nullopt); });
    state.SetIterationTime(turn / kTurn);
    ours += turn;
  }
  state.counters["x_neg"] = ours / neg;
  state.SetLabel(ours <= kMostTimesNeg * neg ? "x_neg <= 3: met" : "x_neg <= 3: not met");
}
BENCHMARK(quantize)
    ->Args({8, 0})
    ->Args({8, -1})
    ->Args({8, 128})
    ->Args({4, 64})
    ->Args({4, 128})
    ->UseManualTime();

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
