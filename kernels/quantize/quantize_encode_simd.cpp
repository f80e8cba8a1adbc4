// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/stream.h"
#include "kernels/quantize/quantize_range_lanes.h"
#include "kernels/quantize/quantize_simd.h"
#include "kernels/quantize/quantize_steps_lanes.h"

QVLMEM_SIMD_BEGIN
namespace {

template <class T, T kValue>
struct Constant {
  static constexpr T value = kValue;
};

// Groups of a batch's columns and less: a batch is ranged, then encoded.
template <bool kSymmetric, Way kWay, class T>
Status encode_batches(const QuantizePlan& plan, const QuantizeSpan& span, const T* x,
                      const uint64_t* seed, void* q, float* scale, int32_t* zero_point) {
  Stage stage;
  StepWriter<kSymmetric, kWay, Ahead::kOnce, T> writer(plan, x, span, seed, 0, q, &stage);
  // Groups of one length run on from row to row, but where a row ends within a byte.
  const bool odd = plan.cols % 2 != 0;
  const bool flat = plan.cols % plan.group == 0 && !(kWay == Way::kStagedNibbles && odd);
  const int64_t most = quantize_batch_groups(plan.group);
  int64_t index = span.row * plan.groups_per_row + span.col / plan.group;
  int64_t col = span.col;
  x += span.flat;
  GroupBatch batch;
  for (int64_t left = span.count; left > 0;) {
    const int64_t in_row = plan.cols - col;
    const int64_t room = flat || left < in_row ? left : in_row;
    int64_t cols = plan.group, count = room / plan.group;
    if (count == 0) cols = room, count = 1;  // a row's last, and shorter
    if (count > most) count = most;
    const size_t n = static_cast<size_t>(cols);
    batch.count = static_cast<size_t>(count);
    look_up_page_ahead(x);
    for (size_t i = 0; i < batch.count; ++i, x += n) {
      batch.set<kSymmetric>(i, range_run<kSymmetric, Ahead::kNone>(x, n).across());
    }
    if (!batch.settle<kSymmetric>(plan.bits)) return Status::kNonFinite;
    for (size_t i = 0; i < batch.count; ++i, ++index) {
      scale[index] = batch.scale[i];
      if (!kSymmetric) zero_point[index] = batch.zero_point[i];
    }
    writer.run_groups(n, batch);
    left -= cols * count;
    if (flat) continue;
    col += cols * count;
    if (col < plan.cols) continue;
    writer.end_row(odd);
    col = 0;
  }
  writer.finish();
  return Status::kOk;
}

// Longer groups: one is encoded out of cache while the next one is ranged, by turns, some columns
// at a time: memory would be idle while a whole one is encoded, or ranged out of cache.
template <bool kSymmetric, Way kWay, class T>
Status encode_long(const QuantizePlan& plan, const QuantizeSpan& span, const T* x,
                   const uint64_t* seed, void* q, float* scale, int32_t* zero_point) {
  Stage stage;
  StepWriter<kSymmetric, kWay, Ahead::kKept, T> writer(plan, x, span, seed, plan.group, q, &stage);
  Groups groups(plan, span);
  GroupBatch one;
  one.count = 1;
  LaneRange<kSymmetric> range;
  int64_t index = span.row * plan.groups_per_row + span.col / plan.group;
  int64_t col = span.col, left = span.count;
  x += span.flat;
  // At first there is one to range alone, at last one to encode alone.
  for (int64_t cols = 0, next; cols > 0 || left > 0; x += next, left -= next, cols = next) {
    if (cols > 0) {
      one.set<kSymmetric>(0, range.across());
      if (!one.settle<kSymmetric>(plan.bits)) return Status::kNonFinite;
      scale[index] = one.scale[0];
      if (!kSymmetric) zero_point[index] = one.zero_point[0];
      ++index;
      range = LaneRange<kSymmetric>();
    }
    next = left > 0 ? groups.next() : 0;
    for (int64_t at = 0; at < cols || at < next; at += kBatchCols) {
      if (at < next) {
        const size_t n = static_cast<size_t>(HWY_MIN(kBatchCols, next - at));
        look_up_page_ahead(x + at);
        range.widen(range_run<kSymmetric, Ahead::kNone>(x + at, n));
      }
      if (at < cols) {
        writer.run(static_cast<size_t>(HWY_MIN(kBatchCols, cols - at)), one.group(0));
      }
    }
    col += cols;
    if (cols == 0 || col < plan.cols) continue;
    writer.end_row(plan.cols % 2 != 0);
    col = 0;
  }
  writer.finish();
  return Status::kOk;
}

template <bool kSymmetric, Way kWay, class T>
Status encode_units(const QuantizePlan& plan, const T* x, int64_t unit_begin, int64_t unit_end,
                    const uint64_t* seed, void* q, float* scale, int32_t* zero_point) {
  const QuantizeSpan span = span_of(plan, unit_begin, unit_end);
  return plan.group > kBatchCols
             ? encode_long<kSymmetric, kWay>(plan, span, x, seed, q, scale, zero_point)
             : encode_batches<kSymmetric, kWay>(plan, span, x, seed, q, scale, zero_point);
}

// Where a pass does one thing alone, the processor itself reads float32 ahead fast enough, and is
// slower when its lines are asked for, too; narrower types are worked on for longer than it looks.
template <class T>
constexpr bool kAskForLines = sizeof(T) < sizeof(float);

template <bool kSymmetric, class T>
void range_units(const QuantizePlan& plan, const T* x, int64_t unit_begin, int64_t unit_end,
                 QuantizeRange* ranges) {
  const bool far = kAskForLines<T> && plan.rows * plan.cols >= kStreamBytes;
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const QuantizeSpan span = span_of(plan, unit, unit + 1);
    const T* const values = x + span.flat;
    LaneRange<kSymmetric> range;
    for_each_page(values, static_cast<size_t>(span.count), [&](size_t i, size_t count) HWY_ATTR {
      range.widen(far ? range_run<kSymmetric, Ahead::kKept>(values + i, count)
                      : range_run<kSymmetric, Ahead::kNone>(values + i, count));
    });
    ranges[unit - unit_begin] = range.across();
  }
}

template <bool kSymmetric, Way kWay, class T>
void encode_scaled_units(const QuantizePlan& plan, const T* x, int64_t unit_begin, int64_t unit_end,
                         const uint64_t* seed, const float* scale, const int32_t* zero_point,
                         void* q) {
  const QuantizeSpan span = span_of(plan, unit_begin, unit_end);
  Stage stage;
  constexpr Ahead kAhead = kAskForLines<T> ? Ahead::kOnce : Ahead::kPage;
  StepWriter<kSymmetric, kWay, kAhead, T> writer(plan, x, span, seed, 0, q, &stage);
  const bool odd = plan.cols % 2 != 0;
  int64_t left = plan.cols - span.col;
  for (int64_t row = span.row, count = span.count; count > 0; ++row, left = plan.cols) {
    const int64_t group = plan.per_tensor ? 0 : row;
    const int64_t n = count < left ? count : left;
    writer.run(static_cast<size_t>(n),
               {scale[group], 1.0f / scale[group], kSymmetric ? 0 : zero_point[group]});
    if (n == left) writer.end_row(odd);
    count -= n;
  }
  writer.finish();
}

// Calls f(values, symmetric, way) with x as what it points to; the others are constants by type.
template <class F>
HWY_INLINE auto with_constants(const QuantizePlan& plan, const void* x, DType dtype, Way way,
                               const F& f) {
  const auto with_way = [&](const auto* values, auto symmetric) HWY_ATTR {
    switch (way) {
      case Way::kCached:
        return f(values, symmetric, Constant<Way, Way::kCached>());
      case Way::kStreamed:
        return f(values, symmetric, Constant<Way, Way::kStreamed>());
      case Way::kStagedBytes:
        return f(values, symmetric, Constant<Way, Way::kStagedBytes>());
      default:
        return f(values, symmetric, Constant<Way, Way::kStagedNibbles>());
    }
  };
  const auto with_symmetry = [&](const auto* values) HWY_ATTR {
    return plan.symmetric ? with_way(values, Constant<bool, true>())
                          : with_way(values, Constant<bool, false>());
  };
  switch (dtype) {
    case DType::kFloat16:
      return with_symmetry(static_cast<const Half*>(x));
    case DType::kBFloat16:
      return with_symmetry(static_cast<const BFloat16*>(x));
    default:
      return with_symmetry(static_cast<const float*>(x));
  }
}

}  // namespace

Status quantize_encode_units(const QuantizePlan& plan, const void* x, DType dtype,
                             int64_t unit_begin, int64_t unit_end, const uint64_t* seed, void* q,
                             float* scale, int32_t* zero_point) {
  return with_constants(plan, x, dtype, way_of(plan, q, seed),
                        [&](const auto* values, auto symmetric, auto way) HWY_ATTR {
                          return encode_units<symmetric.value, way.value>(
                              plan, values, unit_begin, unit_end, seed, q, scale, zero_point);
                        });
}

void quantize_range_units(const QuantizePlan& plan, const void* x, DType dtype, int64_t unit_begin,
                          int64_t unit_end, QuantizeRange* ranges) {
  with_constants(plan, x, dtype, Way::kCached,
                 [&](const auto* values, auto symmetric, auto) HWY_ATTR {
                   range_units<symmetric.value>(plan, values, unit_begin, unit_end, ranges);
                 });
}

void quantize_encode_scaled_units(const QuantizePlan& plan, const void* x, DType dtype,
                                  int64_t unit_begin, int64_t unit_end, const uint64_t* seed,
                                  const float* scale, const int32_t* zero_point, void* q) {
  with_constants(plan, x, dtype, way_of(plan, q, seed),
                 [&](const auto* values, auto symmetric, auto way) HWY_ATTR {
                   encode_scaled_units<symmetric.value, way.value>(
                       plan, values, unit_begin, unit_end, seed, scale, zero_point, q);
                 });
}

QVLMEM_SIMD_END
