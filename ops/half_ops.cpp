// SPDX-License-Identifier: Apache-2.0
#include "ops/half_ops.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <mutex>

#include "ops/base/check.h"
#include "ops/base/output.h"
#include "ops/base/parallel.h"

namespace qvlmem::ops {
namespace {

// Units that a thread takes at least: 64 Ki elements, below which waking a thread costs more.
constexpr int64_t kGrain = 2;

bool is_half_dtype(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16 ||
         dtype == at::kDouble;
}

void check_half_input(const at::Tensor& x) {
  check_dense("to_fp16", "x", x);
  TORCH_CHECK_TYPE(is_half_dtype(x.scalar_type()),
                   "qvlmem::to_fp16: expected x to be float32, float16, bfloat16 or float64, got ",
                   describe(x));
}

// Returns the output's dtype.
at::ScalarType check_half_parts(const at::Tensor& half, const at::Tensor& scale,
                                std::optional<at::ScalarType> dtype) {
  check_dtype("from_fp16", "half", half, at::kHalf);
  check_dense("from_fp16", "scale", scale);
  TORCH_CHECK_TYPE(scale.scalar_type() == at::kFloat || scale.scalar_type() == at::kDouble,
                   "qvlmem::from_fp16: expected scale to be float32 or float64, got ",
                   describe(scale));
  TORCH_CHECK_VALUE(scale.sym_numel() == 1,
                    "qvlmem::from_fp16: expected scale to have one element, got ", describe(scale));
  TORCH_CHECK_VALUE(half.device() == scale.device(),
                    "qvlmem::from_fp16: expected half and scale on one device, got ", half.device(),
                    " and ", scale.device());
  const at::ScalarType result = dtype.value_or(at::kFloat);
  TORCH_CHECK_TYPE(
      is_half_dtype(result),
      "qvlmem::from_fp16: expected dtype to be float32, float16, bfloat16 or float64, got ",
      describe(result));
  return result;
}

HalfPlan make_plan(const char* op, const char* what, int64_t numel, at::ScalarType dtype) {
  HalfPlan plan;
  check_status(op, what, make_half_plan(numel, kernel_dtype(op, dtype), &plan));
  return plan;
}

at::ScalarType scale_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// One pass over x; returns its largest finite magnitude.
double encode(const HalfPlan& plan, const void* x, double scale, void* half) {
  double magnitude = 0.0;
  std::mutex mutex;
  parallel_units(plan.unit_count, kGrain, [&](int64_t begin, int64_t end) {
    const double top = half_encode_cpu(plan, x, scale, begin, end, half);
    const std::lock_guard<std::mutex> lock(mutex);
    magnitude = std::max(magnitude, top);
  });
  return magnitude;
}

}  // namespace

HalfEncodeCall prepare_to_fp16(const at::Tensor& x) {
  check_half_input(x);
  const HalfPlan plan = make_plan("to_fp16", "x", x.numel(), x.scalar_type());
  return {plan, x.contiguous(), empty_output(x.sizes(), x.options().dtype(at::kHalf)),
          at::empty({}, x.options().dtype(scale_dtype(x)))};
}

HalfDecodeCall prepare_from_fp16(const at::Tensor& half, const at::Tensor& scale,
                                 std::optional<at::ScalarType> dtype) {
  const at::ScalarType result = check_half_parts(half, scale, dtype);
  const HalfPlan plan = make_plan("from_fp16", "half", half.numel(), result);
  return {plan, half.contiguous(), empty_output(half.sizes(), half.options().dtype(result))};
}

std::tuple<at::Tensor, at::Tensor> to_fp16_cpu(const at::Tensor& x) {
  const HalfEncodeCall call = prepare_to_fp16(x);
  const void* data = call.x.const_data_ptr();
  void* const half = call.half.mutable_data_ptr();
  const double proposed = half_propose_scale_cpu(call.plan, data);
  const double magnitude = encode(call.plan, data, proposed, half);
  const double settled = half_settle_scale(call.plan, proposed, magnitude);
  if (settled != proposed) encode(call.plan, data, settled, half);
  call.scale.fill_(settled);
  return {call.half, call.scale};
}

std::tuple<at::Tensor, at::Tensor> to_fp16_meta(const at::Tensor& x) {
  check_half_input(x);
  return {at::empty_symint(x.sym_sizes(), x.options().dtype(at::kHalf)),
          at::empty({}, x.options().dtype(scale_dtype(x)))};
}

at::Tensor from_fp16_cpu(const at::Tensor& half, const at::Tensor& scale,
                         std::optional<at::ScalarType> dtype) {
  const HalfDecodeCall call = prepare_from_fp16(half, scale, dtype);
  const double factor = scale.item<double>();
  parallel_units(call.plan.unit_count, kGrain, [&](int64_t begin, int64_t end) {
    half_decode_cpu(call.plan, call.half.const_data_ptr(), factor, begin, end,
                    call.y.mutable_data_ptr());
  });
  return call.y;
}

at::Tensor from_fp16_meta(const at::Tensor& half, const at::Tensor& scale,
                          std::optional<at::ScalarType> dtype) {
  const at::ScalarType result = check_half_parts(half, scale, dtype);
  return at::empty_symint(half.sym_sizes(), half.options().dtype(result));
}

}  // namespace qvlmem::ops
