// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of every codec on one tensor each. On a GPU: their times beside a copy on the
// device, in interleaved rounds. On a simulated one (its log says what it executed) each runs once,
// and cuda_limits.py reads the log. One line a case on standard error:
//   case NAME | ELEMENTS | BYTES READ | BYTES WRITTEN [| SECONDS | SECONDS OF THE COPY]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tools/benchmarks/cuda_cases.h"

namespace qvlmem::bench {
namespace {

constexpr int kRounds = 9;

double seconds(const std::function<void()>& run) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  check(cudaEventRecord(begin));
  run();
  check(cudaEventRecord(end));
  check(cudaEventSynchronize(end));
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin, end));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return milliseconds / 1e3;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

void measure(const CudaCase& c, bool simulated) {
  std::fprintf(stderr, "case %s | %lld | %.0f | %.0f", c.name.c_str(),
               static_cast<long long>(c.elements), c.bytes_read, c.bytes_written);
  if (simulated) {
    std::fprintf(stderr, "\n");
    c.run();
    check(cudaDeviceSynchronize());
    return;
  }
  DeviceMemory from(c.elements * 4), to(c.elements * 4);
  const auto copy = [&] {
    check(cudaMemcpyAsync(to.data(), from.data(), c.elements * 4, cudaMemcpyDeviceToDevice));
  };
  std::vector<double> ours, copies;
  for (int round = 0; round < kRounds + 2; ++round) {
    const double a = seconds(c.run), b = seconds(copy);
    if (round < 2) continue;
    ours.push_back(a);
    copies.push_back(b);
  }
  std::fprintf(stderr, " | %.9f | %.9f\n", median(ours), median(copies));
}

int run(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "no CUDA device\n");
    return 3;
  }
  const bool simulated = std::getenv("QVLMEM_SIM_VERBOSE") != nullptr;
  const int64_t elements = argc > 1 ? std::atoll(argv[1]) : int64_t{1} << 24;
  for (const CudaCase& c : cuda_cases(elements)) measure(c, simulated);
  return 0;
}

}  // namespace
}  // namespace qvlmem::bench

int main(int argc, char** argv) { return qvlmem::bench::run(argc, argv); }
