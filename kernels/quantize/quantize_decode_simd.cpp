// SPDX-License-Identifier: Apache-2.0
#include "kernels/base/float64_bits.h"
#include "kernels/quantize/quantize_simd.h"
#include "kernels/quantize/quantize_stage_lanes.h"

QVLMEM_SIMD_BEGIN
namespace {

// Unpacks n nibbles, sign-extended or not.
HWY_INLINE void unpack_nibbles(const uint8_t* bytes, size_t n, bool sign_extend, int8_t* steps) {
  const int8_t bias = sign_extend ? 8 : 0;  // (v ^ 8) - 8 extends the sign of a nibble
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<uint16_t> d16;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const hn::ScalableTag<int8_t> d8full;
  const size_t pairs = hn::Lanes(d16);
  const auto vbias = hn::Set(d8full, bias);
  for (; i + 2 * pairs <= n; i += 2 * pairs) {
    const auto packed = hn::PromoteTo(d16, hn::LoadU(d8, bytes + i / 2));
    const auto low = hn::And(packed, hn::Set(d16, uint16_t{0x000f}));
    const auto high = hn::And(hn::ShiftLeft<4>(packed), hn::Set(d16, uint16_t{0x0f00}));
    const auto both = hn::BitCast(d8full, hn::Or(low, high));
    hn::StoreU(hn::Sub(hn::Xor(both, vbias), vbias), d8full, steps + i);
  }
#endif
  for (; i < n; i += 2) {
    const int byte = bytes[i / 2];
    steps[i] = static_cast<int8_t>(((byte & 0x0f) ^ bias) - bias);
    if (i + 1 < n) steps[i + 1] = static_cast<int8_t>(((byte >> 4) ^ bias) - bias);
  }
}

// Values at a time, at most: as float32 they fill a page, and each page has to be looked up.
constexpr size_t kStepRun = kPageBytes / sizeof(float);

// Reads the steps of one span, in order; those of 4 bits by way of a stage in L1.
class StepReader {
 public:
  StepReader(const QuantizePlan& plan, const QuantizeSpan& span, const void* q)
      : four_(plan.bits == 4),
        symmetric_(plan.symmetric),
        odd_(plan.cols % 2 != 0),
        cols_(plan.cols),
        row_left_(plan.cols - span.col),
        left_(span.count),
        q_(static_cast<const uint8_t*>(q) + span.row * plan.row_bytes +
           (four_ ? span.col / 2 : span.col)) {}

  // Up to n values, at least 1 and at most kStepRun; *count of them. REQUIRES: n >= 1, and that
  // many are left.
  HWY_INLINE const int8_t* next(size_t n, size_t* count) {
    if (!four_) {
      *count = n < kStepRun ? n : kStepRun;
      q_ += *count;
      return reinterpret_cast<const int8_t*>(q_) - *count;
    }
    if (at_ == filled_) fill();
    *count = n < filled_ - at_ ? n : filled_ - at_;
    at_ += *count;
    return stage_ + at_ - *count;
  }

 private:
  // Rows of an even length run into one another; others end within a byte.
  void fill() {
    int64_t n = odd_ && row_left_ < left_ ? row_left_ : left_;
    if (n > static_cast<int64_t>(kStepRun)) n = kStepRun;
    filled_ = static_cast<size_t>(n);
    unpack_nibbles(q_, filled_, symmetric_, stage_);
    q_ += (filled_ + 1) / 2;
    at_ = 0;
    left_ -= n;
    row_left_ = row_left_ == n ? cols_ : row_left_ - n;
  }

  const bool four_, symmetric_, odd_;
  const int64_t cols_;
  int64_t row_left_, left_;
  const uint8_t* q_;
  size_t at_ = 0, filled_ = 0;
  alignas(64) int8_t stage_[kStepRun];
};

template <class T>
HWY_INLINE VF32 decode_vector(const int8_t* steps, VF32 scale, VI32 zero) {
  const hn::Rebind<int8_t, DI32> d8;
  const VI32 above = hn::Sub(hn::PromoteTo(DI32(), hn::LoadU(d8, steps)), zero);
  return clamp_to_finite<T>(hn::Mul(hn::ConvertTo(DF32(), above), scale));
}

template <bool kStream, class T>
HWY_INLINE void decode_two(const int8_t* steps, VF32 scale, VI32 zero, T* y) {
  const VF32 first = decode_vector<T>(steps, scale, zero);
  if (!kNarrowsTwo<T>) store_f32<kStream>(first, y);
  const VF32 second = decode_vector<T>(steps + N, scale, zero);
  if (kNarrowsTwo<T>) {
    store_two_f32<kStream, true>(first, second, y);
  } else {
    store_f32<kStream>(second, y + N);
  }
}

template <class T>
void decode_alone(const int8_t* steps, size_t n, float scale, int32_t zero_point, T* y) {
  for (size_t i = 0; i < n; ++i) {
    y[i] = from_float_saturating<T>(dequantize_value(steps[i], scale, zero_point));
  }
}

template <bool kStream, class T>
HWY_INLINE void decode_run(const int8_t* steps, size_t n, float scale, int32_t zero_point, T* y) {
  // What may become NaN goes the way of the last values, whatever vectors make of it.
  if (HWY_UNLIKELY(!is_finite(scale))) return decode_alone(steps, n, scale, zero_point, y);
  const VF32 vscale = hn::Set(DF32(), scale);
  const VI32 zero = hn::Set(DI32(), zero_point);
  size_t i = 0;
  if (stands_between<kStream>(y) && n >= N) {
    store_f32<kStream>(decode_vector<T>(steps, vscale, zero), y);
    i = N;
  }
  for (; i + 4 * N <= n; i += 4 * N) {
    decode_two<kStream>(steps + i, vscale, zero, y + i);
    decode_two<kStream>(steps + i + 2 * N, vscale, zero, y + i + 2 * N);
  }
  for (; i + N <= n; i += N) {
    store_f32<kStream>(decode_vector<T>(steps + i, vscale, zero), y + i);
  }
  if (i == n) return;
  if (n >= N) {
    i = n - N;
    return store_f32<false>(decode_vector<T>(steps + i, vscale, zero), y + i);
  }
  decode_alone(steps + i, n - i, scale, zero_point, y + i);
}

// Writes the values of one span, run after run: past the caches where there are many, and then by
// way of a stage where runs do not end at the end of a vector.
template <class T>
class ValueWriter {
 public:
  ValueWriter(const QuantizePlan& plan, T* y, Stage* stage)
      : y_(y),
        far_(plan.rows * plan.cols * static_cast<int64_t>(sizeof(T)) >= kStreamBytes),
        straight_(!far_ || suits_streaming(plan, y)),
        lines_(reinterpret_cast<uint8_t*>(y), far_, stage->bytes) {
    if (!straight_) stage->clear();
  }

  // REQUIRES: n <= kStepRun.
  HWY_INLINE void run(const int8_t* steps, size_t n, float scale, int32_t zero_point) {
    if (straight_) {
      if (far_) {
        look_up_page_ahead(y_);
        decode_run<true>(steps, n, scale, zero_point, y_);
      } else {
        decode_run<false>(steps, n, scale, zero_point, y_);
      }
      y_ += n;
      return;
    }
    while (n > 0) {
      const size_t piece = n < kStageFull / sizeof(T) ? n : kStageFull / sizeof(T);
      decode_run<false>(steps, piece, scale, zero_point, reinterpret_cast<T*>(lines_.next()));
      lines_.staged(piece * sizeof(T));
      steps += piece;
      n -= piece;
    }
  }

  HWY_INLINE void finish() {
    if (!straight_) lines_.finish();
  }

 private:
  static bool suits_streaming(const QuantizePlan& plan, const T* y) {
    const int64_t lanes = static_cast<int64_t>(N);
    return can_stream(y) && plan.cols % lanes == 0 &&
           (plan.group % lanes == 0 || plan.group == plan.cols);
  }

  T* y_;
  const bool far_, straight_;
  StagedLines<false> lines_;
};

template <class T>
void decode_units(const QuantizePlan& plan, const void* q, const float* scale,
                  const int32_t* zero_point, int64_t unit_begin, int64_t unit_end, T* y) {
  const QuantizeSpan span = span_of(plan, unit_begin, unit_end);
  Stage stage;
  ValueWriter<T> writer(plan, y + span.flat, &stage);
  StepReader reader(plan, span, q);
  Groups groups(plan, span);
  int64_t group = plan.per_tensor ? 0 : span.row * plan.groups_per_row + span.col / plan.group;
  for (int64_t left = span.count; left > 0;) {
    const int64_t columns = groups.next();
    size_t n = static_cast<size_t>(columns < left ? columns : left);
    left -= static_cast<int64_t>(n);
    const float group_scale = scale[group];
    const int32_t zero = plan.symmetric ? 0 : zero_point[group];
    if (!plan.per_tensor) ++group;
    while (n > 0) {
      size_t count;
      const int8_t* steps = reader.next(n, &count);
      writer.run(steps, count, group_scale, zero);
      n -= count;
    }
  }
  writer.finish();
}

}  // namespace

void dequantize_units(const QuantizePlan& plan, const void* q, const float* scale,
                      const int32_t* zero_point, int64_t unit_begin, int64_t unit_end, void* y,
                      DType dtype) {
  const auto run = [&](auto* values) HWY_ATTR {
    decode_units(plan, q, scale, zero_point, unit_begin, unit_end, values);
  };
  switch (dtype) {
    case DType::kFloat16:
      return run(static_cast<Half*>(y));
    case DType::kBFloat16:
      return run(static_cast<BFloat16*>(y));
    default:
      return run(static_cast<float*>(y));
  }
}

QVLMEM_SIMD_END
