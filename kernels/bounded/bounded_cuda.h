// SPDX-License-Identifier: Apache-2.0
// The packed form of bounded on CUDA: the steps and the bytes of bounded.h, on device memory. Sums
// that decide a step are added up in the order of the CPU's, lane by lane.
#pragma once

#include "kernels/base/cuda.h"
#include "kernels/bounded/bounded.h"

namespace qvlmem {

// Bytes of device memory, aligned to 16, that encoding needs from the search on, and that decoding
// needs.
int64_t bounded_encode_workspace_bytes(const BoundedPlan& plan) noexcept;
int64_t bounded_decode_workspace_bytes(const BoundedPlan& plan) noexcept;

// What a search has found.
struct BoundedFound {
  int64_t total_bytes;  // of all units
  int32_t non_finite;   // 1: a value is NaN or infinite, and all else is unspecified
  int32_t open;         // 1: rows are still searched
  int32_t missed;       // 1: there is a row for which no step holds
  int32_t long_steps;   // 1: there is a step with more than 8 significant bits
};

// How often a call looks at rows that are longer than a unit.
struct BoundedLooks {
  bool first;  // begins the search; else goes on with it
  int count;   // even: what a search has found by then stands where it began
};

// Looks with which a search is practically always done.
int bounded_looks(const BoundedPlan& plan) noexcept;

// Finds the steps of rows and the bytes of units; *found is on the device. Where a search is not
// done after so many looks, found->open is 1, and another call goes on with it. x: dense, of a
// lossy dtype. REQUIRES: plan is of the packed form.
cudaError_t bounded_find_cuda(const BoundedPlan& plan, const void* x, DType dtype,
                              const BoundedTarget& target, BoundedLooks looks, float* step,
                              int32_t* bytes, BoundedFound* found, void* workspace,
                              cudaStream_t stream) noexcept;

// Packs all units one after another. REQUIRES: step and the workspace as bounded_find_cuda has left
// them. Where x has changed since, what is written means nothing, but lies inside.
cudaError_t bounded_encode_cuda(const BoundedPlan& plan, const void* x, DType dtype,
                                const float* step, uint8_t* packed, const void* workspace,
                                cudaStream_t stream) noexcept;

// Decodes units, `packed_bytes` in all and `bytes` each, into y (rows x cols, dense), all of which
// may be hostile. Where bounded_offsets or bounded_decode_cpu would refuse them, *refused becomes 1
// (the caller sets it to 0 before), and the values of refused units NaN, bytes of 0xff: of all
// units where their bytes do not add up. REQUIRES: plan is of the packed form.
cudaError_t bounded_decode_cuda(const BoundedPlan& plan, const uint8_t* packed,
                                int64_t packed_bytes, const int32_t* bytes, const float* step,
                                void* y, DType dtype, int32_t* refused, void* workspace,
                                cudaStream_t stream) noexcept;

}  // namespace qvlmem
