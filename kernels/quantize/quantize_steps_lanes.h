// SPDX-License-Identifier: Apache-2.0
// From values to steps, and from steps to the bytes of q.
#pragma once

#include "kernels/quantize/quantize_range_lanes.h"
#include "kernels/quantize/quantize_stage_lanes.h"

QVLMEM_SIMD_BEGIN
namespace {

// What one group's values are rounded with.
struct Rounding {
  QuantizeGroup group;
  int32_t low, high;
};

#if HWY_TARGET != HWY_SCALAR
// The same in all lanes. A copy of a loop's own: a store to q might change anything that has an
// address.
struct LaneRounding {
#if HWY_TARGET == HWY_AVX2
  __m256i low, high, zero;
  HWY_INLINE LaneRounding(int32_t low_step, int32_t high_step)
      : low(_mm256_set1_epi8(static_cast<int8_t>(low_step))),
        high(_mm256_set1_epi8(static_cast<int8_t>(high_step))) {}
#else
  __m512i low, high, zero;
  HWY_INLINE LaneRounding(int32_t low_step, int32_t high_step)
      : low(_mm512_set1_epi8(static_cast<int8_t>(low_step))),
        high(_mm512_set1_epi8(static_cast<int8_t>(high_step))) {}
#endif
  VF32 inverse;

  HWY_INLINE void set_group(float group_inverse, int32_t zero_point) {
    inverse = hn::Set(DF32(), group_inverse);
#if HWY_TARGET == HWY_AVX2
    zero = _mm256_set1_epi16(static_cast<int16_t>(zero_point));
#else
    zero = _mm512_set1_epi16(static_cast<int16_t>(zero_point));
#endif
  }
};

// Four vectors of steps become int8, in order: the zero point added, within low and high.
// Saturating on the way there is the same, for zero points lie within int8 and low and high too.
template <bool kSymmetric>
HWY_INLINE __m256i pack_steps(__m256i a, __m256i b, __m256i c, __m256i d, __m256i zero, __m256i low,
                              __m256i high) {
  __m256i ab = _mm256_packs_epi32(a, b), cd = _mm256_packs_epi32(c, d);
  if (!kSymmetric) ab = _mm256_adds_epi16(ab, zero), cd = _mm256_adds_epi16(cd, zero);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i q = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(ab, cd), order);
  return _mm256_min_epi8(_mm256_max_epi8(q, low), high);
}

#if HWY_TARGET == HWY_AVX2
template <bool kStream>
HWY_INLINE void store_steps(__m256i steps, int8_t* q) {
  if (kStream) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(q), steps);
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), steps);
  }
}
#else
template <bool kSymmetric>
HWY_INLINE __m512i pack_steps(__m512i a, __m512i b, __m512i c, __m512i d, __m512i zero, __m512i low,
                              __m512i high) {
  __m512i ab = _mm512_packs_epi32(a, b), cd = _mm512_packs_epi32(c, d);
  if (!kSymmetric) ab = _mm512_adds_epi16(ab, zero), cd = _mm512_adds_epi16(cd, zero);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i q = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(ab, cd));
  return _mm512_min_epi8(_mm512_max_epi8(q, low), high);
}

template <bool kStream>
HWY_INLINE void store_steps(__m512i steps, int8_t* q) {
  if (kStream) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(q), steps);
  } else {
    _mm512_storeu_si512(q, steps);
  }
}

// The steps of 2 * N values, read half a vector at a time.
template <bool kSymmetric>
HWY_INLINE __m256i steps_by_halves(const float* x, const LaneRounding& r) {
  const __m256 inverse = _mm512_castps512_ps256(r.inverse.raw);
  const auto steps = [&](size_t i) HWY_ATTR {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
  };
  return pack_steps<kSymmetric>(steps(0), steps(8), steps(16), steps(24),
                                _mm512_castsi512_si256(r.zero), _mm512_castsi512_si256(r.low),
                                _mm512_castsi512_si256(r.high));
}
#endif

template <bool kSymmetric, Ahead kAhead, bool kStream, class T>
HWY_INLINE void nearest_block(const T* x, const T* ahead, const LaneRounding& r, int8_t* q) {
  if (kAhead == Ahead::kPage) look_up_page_ahead(x);
  if (kStream) look_up_page_ahead(q);
#if HWY_TARGET == HWY_AVX3
  // Long groups, whose values come out of cache while others are asked for: by whole vectors they
  // took a tenth longer, in 4 bits a quarter (measured on Zen 5; asking for four lines at once is
  // a part of it).
  if constexpr (kAhead == Ahead::kKept && hwy::IsSame<T, float>()) {
    read_ahead<kAhead, 2>(ahead);
    keep_order();
    const __m256i low = steps_by_halves<kSymmetric>(x, r);
    keep_order();
    read_ahead<kAhead, 2>(ahead + 2 * N);
    keep_order();
    const __m256i high = steps_by_halves<kSymmetric>(x + 2 * N, r);
    store_steps<kStream>(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1), q);
    return;
  }
#endif
  read_ahead<kAhead, 4>(ahead);
  const VI32 a = round_to_int(hn::Mul(load_f32(x), r.inverse));
  const VI32 b = round_to_int(hn::Mul(load_f32(x + N), r.inverse));
  const VI32 c = round_to_int(hn::Mul(load_f32(x + 2 * N), r.inverse));
  const VI32 d = round_to_int(hn::Mul(load_f32(x + 3 * N), r.inverse));
  store_steps<kStream>(pack_steps<kSymmetric>(a.raw, b.raw, c.raw, d.raw, r.zero, r.low, r.high),
                       q);
}
#endif

// Rounds n values to nearest. kStream: past the caches. REQUIRES then: q aligned to 4 * N bytes,
// and n a multiple of 4 * N. Otherwise the last block overlaps the one before it, where there is
// one: it rounds the same values again.
template <bool kSymmetric, Ahead kAhead, bool kStream, class T>
HWY_INLINE void nearest_run(const T* x, size_t n, size_t ahead, const Rounding& r, int8_t* q) {
  size_t i = 0;
#if HWY_TARGET == HWY_SCALAR
  static_cast<void>(ahead);
#else
  LaneRounding lanes(r.low, r.high);
  lanes.set_group(r.group.inverse, r.group.zero_point);
  const T* const far = address_ahead(x, ahead);
  for (; i + 4 * N <= n; i += 4 * N) {
    nearest_block<kSymmetric, kAhead, kStream>(x + i, far + i, lanes, q + i);
  }
  if (kStream || i == n) return;
  if (n >= 4 * N) {
    i = n - 4 * N;
    nearest_block<kSymmetric, Ahead::kNone, false>(x + i, far, lanes, q + i);
    return;
  }
  const VI32 zero = hn::Set(DI32(), r.group.zero_point);
  const VI32 low = hn::Set(DI32(), r.low), high = hn::Set(DI32(), r.high);
  for (; i + N <= n; i += N) {
    const VI32 steps = hn::Add(round_to_int(hn::Mul(load_f32(x + i), lanes.inverse)), zero);
    hn::StoreU(hn::DemoteTo(DI8(), hn::Min(hn::Max(steps, low), high)), DI8(), q + i);
  }
#endif
  for (; i < n; ++i) {
    q[i] = static_cast<int8_t>(quantize_nearest(to_float(x[i]), r.group, r.low, r.high));
  }
}

#if HWY_TARGET != HWY_SCALAR
// The groups of a batch, n values each. REQUIRES: n is a multiple of 4 * N.
template <bool kSymmetric, Ahead kAhead, bool kStream, class T>
HWY_INLINE void nearest_groups(const T* x, size_t n, size_t ahead, const GroupBatch& batch,
                               int32_t low, int32_t high, int8_t* q) {
  LaneRounding lanes(low, high);
  const T* far = address_ahead(x, ahead);
  for (size_t group = 0; group < batch.count; ++group) {
    lanes.set_group(batch.inverse[group], batch.zero_point[group]);
    for (const T* const end = x + n; x != end; x += 4 * N, far += 4 * N, q += 4 * N) {
      nearest_block<kSymmetric, kAhead, kStream>(x, far, lanes, q);
    }
  }
}
#endif

// index: flat position of the first value.
template <class T>
void stochastic_run(const T* x, size_t n, const Rounding& r, uint64_t seed, uint64_t index,
                    int8_t* q) {
  for (size_t i = 0; i < n;) {
    const PhiloxBlock block = philox4x32(seed, (index + i) >> 2);
    do {
      const float uniform = philox_fraction(block.word[(index + i) & 3]);
      q[i] =
          static_cast<int8_t>(quantize_stochastic(to_float(x[i]), r.group, r.low, r.high, uniform));
      ++i;
    } while (i < n && ((index + i) & 3) != 0);
  }
}

// How the steps of one span get to consecutive bytes of q.
enum class Way {
  kCached,         // straight there
  kStreamed,       // straight there, past the caches
  kStagedBytes,    // by way of a stage, for rows of any length to be written past the caches
  kStagedNibbles,  // by way of a stage, packed
};

HWY_INLINE Way way_of(const QuantizePlan& plan, const void* q, const uint64_t* seed) {
  if (plan.bits == 4) return Way::kStagedNibbles;
  if (plan.rows * plan.row_bytes < kStreamBytes || seed != nullptr) return Way::kCached;
  const int64_t block = static_cast<int64_t>(4 * N);
  const bool whole_blocks = plan.cols % block == 0 &&
                            (plan.group % block == 0 || plan.group == plan.cols) &&
                            reinterpret_cast<uintptr_t>(q) % (4 * N) == 0;
  return whole_blocks ? Way::kStreamed : Way::kStagedBytes;
}

// Writes the steps of one span, run after run.
template <bool kSymmetric, Way kWay, Ahead kAhead, class T>
class StepWriter {
 public:
  // until_ranged: columns between a value that is rounded and the one that is ranged meanwhile.
  // stage: used where the way is by one.
  StepWriter(const QuantizePlan& plan, const T* x, const QuantizeSpan& span, const uint64_t* seed,
             int64_t until_ranged, void* q, Stage* stage)
      : x_(x + span.flat),
        seed_(seed),
        index_(static_cast<uint64_t>(span.flat)),
        ahead_(plan.rows * plan.cols < kStreamBytes || seed != nullptr
                   ? 0
                   : ahead_bytes(x_, until_ranged)),
        low_(quantize_low(plan.bits, kSymmetric)),
        high_(quantize_high(plan.bits, kSymmetric)),
        q_(static_cast<int8_t*>(q) + span.row * plan.row_bytes +
           (kNibbles ? span.col / 2 : span.col)),
        lines_(reinterpret_cast<uint8_t*>(q_), plan.rows * plan.row_bytes >= kStreamBytes,
               stage->bytes) {
    if (kStaged) stage->clear();
  }

  // The next n values, all of one group.
  HWY_INLINE void run(size_t n, const QuantizeGroup& group) {
    const Rounding rounding{group, low_, high_};
    if (!kStaged) {
      round(n, rounding, q_);
      q_ += n;
      return;
    }
    while (n > 0) {
      const size_t piece = n < kStageFull ? n : kStageFull;
      round(piece, rounding, lines_.next());
      lines_.staged(piece);
      n -= piece;
    }
  }

  // The next groups, of n values each, kStageRun in all at most.
  HWY_INLINE void run_groups(size_t n, const GroupBatch& batch) {
#if HWY_TARGET != HWY_SCALAR
    const size_t all = n * batch.count;
    if (n % (4 * N) == 0 && seed_ == nullptr) {
      constexpr bool kStream = kWay == Way::kStreamed;
      int8_t* const to = kStaged ? lines_.next() : q_;
      if (ahead_ != 0) {
        nearest_groups<kSymmetric, kAhead, kStream>(x_, n, ahead_, batch, low_, high_, to);
      } else {
        nearest_groups<kSymmetric, Ahead::kNone, kStream>(x_, n, ahead_, batch, low_, high_, to);
      }
      x_ += all;
      if (kStaged) {
        lines_.staged(all);
      } else {
        q_ += all;
      }
      return;
    }
#endif
    for (size_t i = 0; i < batch.count; ++i) {
      run(n, batch.group(i));
    }
  }

  // A row of x ends: one of 4 bits is filled up to a whole byte.
  HWY_INLINE void end_row(bool odd) {
    if (!kNibbles || !odd) return;
    *lines_.next() = 0;
    lines_.staged(1);
  }

  // Writes what is left.
  HWY_INLINE void finish() {
    if (kStaged) lines_.finish();
  }

 private:
  static constexpr bool kNibbles = kWay == Way::kStagedNibbles;
  static constexpr bool kStaged = kNibbles || kWay == Way::kStagedBytes;

  HWY_INLINE void round(size_t n, const Rounding& rounding, int8_t* to) {
    constexpr bool kStream = kWay == Way::kStreamed;
    if (ahead_ != 0) {
      nearest_run<kSymmetric, kAhead, kStream>(x_, n, ahead_, rounding, to);
    } else if (seed_ == nullptr) {
      nearest_run<kSymmetric, Ahead::kNone, kStream>(x_, n, ahead_, rounding, to);
    } else {
      stochastic_run(x_, n, rounding, *seed_, index_, to);
    }
    x_ += n;
    index_ += n;
  }

  const T* x_;
  const uint64_t* const seed_;
  uint64_t index_;
  const size_t ahead_;
  const int32_t low_, high_;
  int8_t* q_;
  StagedLines<kNibbles> lines_;
};

}  // namespace
QVLMEM_SIMD_END
