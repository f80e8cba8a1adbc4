// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "kernels/base/checked.h"
#include "kernels/base/stream.h"
#include "kernels/half/half.h"
#include "kernels/half/half_math.h"
#include "kernels/half/half_simd.h"

namespace qvlmem {
namespace {

const void* element(const void* base, DType dtype, int64_t index) {
  return static_cast<const char*>(base) + index * dtype_bytes(dtype);
}

}  // namespace

Status make_half_plan(int64_t numel, DType dtype, HalfPlan* plan) noexcept {
  if (numel < 0 || !(is_lossy_dtype(dtype) || dtype == DType::kFloat64)) {
    return Status::kInvalidArgument;
  }
  int64_t bytes;
  if (!checked_mul(numel, 8, &bytes)) return Status::kOverflow;
  *plan = HalfPlan{numel, dtype, ceil_div(numel, kHalfUnit)};
  return Status::kOk;
}

double half_propose_scale_cpu(const HalfPlan& plan, const void* x) noexcept {
  if (plan.dtype == DType::kFloat16) return 1.0;
  const auto magnitude_run = QVLMEM_SIMD_PICK(half_magnitude_run);
  const auto magnitude_of = [&](int64_t begin, int64_t n) {
    return magnitude_run(element(x, plan.dtype, begin), plan.dtype, static_cast<size_t>(n));
  };
  double magnitude;
  if (plan.numel <= kHalfSampleAll) {
    magnitude = magnitude_of(0, plan.numel);
  } else {
    magnitude = magnitude_of(0, kHalfSampleHead);
    for (int64_t run = 0; run < kHalfSampleRuns; ++run) {
      const int64_t begin = half_sample_begin(plan.numel, run);
      magnitude = std::max(magnitude, magnitude_of(begin, kHalfSampleRun));
    }
  }
  return power_of_two(half_exponent_for(plan.dtype, magnitude, kHalfProposedExponent));
}

double half_encode_cpu(const HalfPlan& plan, const void* x, double scale, int64_t unit_begin,
                       int64_t unit_end, void* half) noexcept {
  const auto magnitude_run = QVLMEM_SIMD_PICK(half_magnitude_run);
  const auto encode_run = QVLMEM_SIMD_PICK(half_encode_run);
  const bool stream = plan.numel * int64_t{sizeof(Half)} >= kStreamBytes;
  Half* const out = static_cast<Half*>(half);
  double magnitude = 0.0;
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t begin = unit * kHalfUnit;
    const size_t n = static_cast<size_t>(std::min(kHalfUnit, plan.numel - begin));
    const void* values = element(x, plan.dtype, begin);
    if (plan.dtype == DType::kFloat16) {
      std::memcpy(out + begin, values, n * sizeof(Half));
      continue;
    }
    // Once the scale has failed, only the magnitude is still wanted of this pass.
    const bool failed = magnitude / scale >= kHalfOverflow;
    const double top = failed ? magnitude_run(values, plan.dtype, n)
                              : encode_run(values, plan.dtype, n, 1.0 / scale, stream, out + begin);
    magnitude = std::max(magnitude, top);
  }
  return magnitude;
}

double half_settle_scale(const HalfPlan& plan, double proposed, double magnitude) noexcept {
  if (plan.dtype == DType::kFloat16) return 1.0;
  return power_of_two(half_settle_exponent(plan.dtype, exponent_of(proposed), magnitude));
}

void half_decode_cpu(const HalfPlan& plan, const void* half, double scale, int64_t unit_begin,
                     int64_t unit_end, void* y) noexcept {
  const auto decode_run = QVLMEM_SIMD_PICK(half_decode_run);
  const bool stream = plan.numel * dtype_bytes(plan.dtype) >= kStreamBytes;
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t begin = unit * kHalfUnit;
    const size_t n = static_cast<size_t>(std::min(kHalfUnit, plan.numel - begin));
    decode_run(static_cast<const Half*>(half) + begin, n, scale, stream,
               static_cast<char*>(y) + begin * dtype_bytes(plan.dtype), plan.dtype);
  }
}

}  // namespace qvlmem
