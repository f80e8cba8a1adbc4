// SPDX-License-Identifier: Apache-2.0
#include "ops/quantize_ops.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <vector>

#include "kernels/base/checked.h"
#include "kernels/quantize/quantize.h"
#include "ops/base/check.h"
#include "ops/base/output.h"
#include "ops/base/parallel.h"

namespace qvlmem::ops {
namespace {

// Units that a thread takes at least: about 64 Ki columns, below which waking a thread costs more.
constexpr int64_t kGrain = 8;

void check_arguments(const char* op, int64_t bits, int64_t group_size) {
  TORCH_CHECK_VALUE(bits == 8 || bits == 4, "qvlmem::", op, ": expected bits to be 8 or 4, got ",
                    bits);
  TORCH_CHECK_VALUE(group_size >= -1, "qvlmem::", op,
                    ": expected group_size to be -1 (a row), 0 (the tensor) or positive, got ",
                    group_size);
}

// Shapes of q and scale; for sizes and for symbolic sizes.
template <class Int>
struct QuantizedShapes {
  std::vector<Int> q, scale;
};

template <class Int, class Shape>
QuantizedShapes<Int> quantized_shapes(const Shape& shape, int64_t bits, int64_t group_size) {
  QuantizedShapes<Int> out;
  out.q.assign(shape.begin(), shape.end());
  if (out.q.empty()) out.q.push_back(Int(1));
  const Int last = out.q.back();
  if (group_size != 0) out.scale.assign(out.q.begin(), out.q.end() - 1);
  // No row is longer than half of 63 bits, so that a longer group is the same as one of that
  // length.
  const int64_t group = std::min(group_size, std::numeric_limits<int64_t>::max() / 2);
  if (group > 0) out.scale.push_back((last + (group - 1)) / group);
  if (bits == 4) out.q.back() = (last + 1) / 2;
  return out;
}

QuantizePlan make_plan(const char* op, at::IntArrayRef shape, int64_t bits, bool symmetric,
                       int64_t group_size) {
  check_arguments(op, bits, group_size);
  const MatrixShape matrix = matrix_shape(shape);
  QuantizePlan plan;
  check_status(op, "shape",
               make_quantize_plan(matrix.rows, matrix.cols, static_cast<int>(bits), symmetric,
                                  group_size, &plan));
  return plan;
}

void widen(QuantizeRange* into, const QuantizeRange& range) {
  into->min = std::min(into->min, range.min);
  into->max = std::max(into->max, range.max);
  into->magnitude_bits = std::max(into->magnitude_bits, range.magnitude_bits);
}

// First pass over groups of several units: the range of each group. Minimum and maximum do not
// depend on the order, so neither does the result on the threads.
std::vector<QuantizeRange> group_ranges(const QuantizePlan& plan, const void* x, DType dtype) {
  std::vector<QuantizeRange> ranges(plan.group_count);
  std::mutex mutex;
  parallel_units(plan.unit_count, kGrain, [&](int64_t begin, int64_t end) {
    constexpr int64_t kBatch = 64;
    QuantizeRange batch[kBatch];
    QuantizeRange pending;
    int64_t group = quantize_group_of_unit(plan, begin);
    const auto merge_pending = [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      widen(&ranges[group], pending);
    };
    for (int64_t unit = begin; unit < end; unit += kBatch) {
      const int64_t stop = std::min(unit + kBatch, end);
      quantize_range_cpu(plan, x, dtype, unit, stop, batch);
      for (int64_t u = unit; u < stop; ++u) {
        const int64_t next = quantize_group_of_unit(plan, u);
        if (next != group) {
          merge_pending();
          group = next;
          pending = QuantizeRange{};
        }
        widen(&pending, batch[u - unit]);
      }
    }
    merge_pending();
  });
  return ranges;
}

}  // namespace

QuantizeCall prepare_quantize(const at::Tensor& x, int64_t bits, bool symmetric,
                              int64_t group_size) {
  check_lossy_input("quantize", x);
  const QuantizePlan plan = make_plan("quantize", x.sizes(), bits, symmetric, group_size);
  const auto shapes = quantized_shapes<int64_t>(x.sizes(), bits, group_size);
  return {plan, empty_output(shapes.q, x.options().dtype(bits == 8 ? at::kChar : at::kByte)),
          at::empty(shapes.scale, x.options().dtype(at::kFloat)),
          symmetric ? at::empty({0}, x.options().dtype(at::kInt))
                    : at::empty(shapes.scale, x.options().dtype(at::kInt))};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> quantize_cpu(const at::Tensor& x, int64_t bits,
                                                            bool symmetric, int64_t group_size,
                                                            std::optional<int64_t> rounding_seed) {
  const QuantizeCall call = prepare_quantize(x, bits, symmetric, group_size);
  const QuantizePlan& plan = call.plan;
  const at::Tensor values = x.contiguous();
  const void* data = values.const_data_ptr();
  const DType dtype = kernel_dtype("quantize", x.scalar_type());
  float* scales = call.scale.mutable_data_ptr<float>();
  int32_t* zeros = symmetric ? nullptr : call.zero_point.mutable_data_ptr<int32_t>();
  const uint64_t seed = static_cast<uint64_t>(rounding_seed.value_or(0));
  const uint64_t* seed_or_null = rounding_seed ? &seed : nullptr;
  std::atomic<bool> finite{true};
  if (plan.fused && plan.unit_count > 0) {
    parallel_units(plan.unit_count, kGrain, [&](int64_t begin, int64_t end) {
      const Status status = quantize_encode_cpu(plan, data, dtype, begin, end, seed_or_null,
                                                call.q.mutable_data_ptr(), scales, zeros);
      if (status != Status::kOk) finite.store(false, std::memory_order_relaxed);
    });
  } else {
    const std::vector<QuantizeRange> ranges = plan.unit_count > 0
                                                  ? group_ranges(plan, data, dtype)
                                                  : std::vector<QuantizeRange>(plan.group_count);
    for (int64_t g = 0; g < plan.group_count; ++g) {
      if (!range_is_finite(ranges[g])) throw_non_finite("quantize", x);
      const QuantizeGroup group = quantize_group(ranges[g], plan.bits, symmetric);
      scales[g] = group.scale;
      if (!symmetric) zeros[g] = group.zero_point;
    }
    parallel_units(plan.unit_count, kGrain, [&](int64_t begin, int64_t end) {
      quantize_encode_scaled_cpu(plan, data, dtype, begin, end, seed_or_null, scales, zeros,
                                 call.q.mutable_data_ptr());
    });
  }
  if (!finite) throw_non_finite("quantize", x);
  return {call.q, call.scale, call.zero_point};
}

bool all_finite_cpu(const at::Tensor& x) {
  check_lossy_input("all_finite", x);
  if (x.numel() == 0) return true;
  const at::Tensor values = x.contiguous();
  const QuantizePlan plan = make_plan("all_finite", {x.numel()}, 8, true, 0);
  return range_is_finite(
      group_ranges(plan, values.const_data_ptr(), kernel_dtype("all_finite", x.scalar_type()))[0]);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> quantize_meta(const at::Tensor& x, int64_t bits,
                                                             bool symmetric, int64_t group_size,
                                                             std::optional<int64_t>) {
  check_lossy_input("quantize", x);
  check_arguments("quantize", bits, group_size);
  const auto shapes = quantized_shapes<c10::SymInt>(x.sym_sizes(), bits, group_size);
  at::Tensor q = at::empty_symint(shapes.q, x.options().dtype(bits == 8 ? at::kChar : at::kByte));
  at::Tensor scale = at::empty_symint(shapes.scale, x.options().dtype(at::kFloat));
  at::Tensor zero_point = symmetric ? at::empty({0}, x.options().dtype(at::kInt))
                                    : at::empty_symint(shapes.scale, x.options().dtype(at::kInt));
  return {q, scale, zero_point};
}

void check_quantized(const char* op, const at::Tensor& q, const at::Tensor& scale,
                     const at::Tensor& zero_point, at::IntArrayRef shape, int64_t bits,
                     int64_t group_size) {
  check_arguments(op, bits, group_size);
  check_sizes(op, shape, 8);
  const auto shapes = quantized_shapes<int64_t>(shape, bits, group_size);
  check_dtype(op, "q", q, bits == 8 ? at::kChar : at::kByte);
  check_shape(op, "q", q, shapes.q);
  check_dtype(op, "scale", scale, at::kFloat);
  check_shape(op, "scale", scale, shapes.scale);
  check_dtype(op, "zero_point", zero_point, at::kInt);
  if (zero_point.numel() > 0) check_shape(op, "zero_point", zero_point, shapes.scale);
  TORCH_CHECK_VALUE(q.device() == scale.device() && q.device() == zero_point.device(),
                    "qvlmem::", op, ": expected q, scale and zero_point on one device, got ",
                    q.device(), ", ", scale.device(), " and ", zero_point.device());
}

DequantizeCall prepare_dequantize(const at::Tensor& q, const at::Tensor& scale,
                                  const at::Tensor& zero_point, at::IntArrayRef shape, int64_t bits,
                                  int64_t group_size, std::optional<at::ScalarType> dtype) {
  check_quantized("dequantize", q, scale, zero_point, shape, bits, group_size);
  const at::ScalarType result = output_dtype("dequantize", dtype);
  const bool symmetric = zero_point.numel() == 0;
  return {make_plan("dequantize", shape, bits, symmetric, group_size), q.contiguous(),
          scale.contiguous(), zero_point.contiguous(),
          empty_output(shape, q.options().dtype(result))};
}

at::Tensor dequantize_cpu(const at::Tensor& q, const at::Tensor& scale,
                          const at::Tensor& zero_point, at::IntArrayRef shape, int64_t bits,
                          int64_t group_size, std::optional<at::ScalarType> dtype) {
  const DequantizeCall call =
      prepare_dequantize(q, scale, zero_point, shape, bits, group_size, dtype);
  const DType result = kernel_dtype("dequantize", call.y.scalar_type());
  parallel_units(call.plan.unit_count, kGrain, [&](int64_t begin, int64_t end) {
    qvlmem::dequantize_cpu(
        call.plan, call.q.const_data_ptr(), call.scale.const_data_ptr<float>(),
        call.plan.symmetric ? nullptr : call.zero_point.const_data_ptr<int32_t>(), begin, end,
        call.y.mutable_data_ptr(), result);
  });
  return call.y;
}

at::Tensor dequantize_meta(const at::Tensor& q, const at::Tensor&, const at::Tensor&,
                           c10::SymIntArrayRef shape, int64_t bits, int64_t group_size,
                           std::optional<at::ScalarType> dtype) {
  check_arguments("dequantize", bits, group_size);
  check_dtype("dequantize", "q", q, bits == 8 ? at::kChar : at::kByte);
  return at::empty_symint(shape, q.options().dtype(output_dtype("dequantize", dtype)));
}

}  // namespace qvlmem::ops
