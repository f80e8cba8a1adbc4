// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "kernels/sparse/sparse.h"
#include "kernels/sparse/sparse_decode_simd.h"
#include "kernels/sparse/sparse_encode_simd.h"

namespace qvlmem {
namespace {

const char* unit_of(const SparsePlan& plan, const void* x, int64_t unit) {
  return static_cast<const char*>(x) + unit * kSparseUnit * plan.element_bytes;
}

uint32_t bits_at(const SparsePlan& plan, const void* values, int64_t i) {
  const char* const at = static_cast<const char*>(values) + i * plan.element_bytes;
  if (plan.element_bytes == 4) {
    uint32_t bits;
    std::memcpy(&bits, at, 4);
    return bits;
  }
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  return bits;
}

// Elements of the unit that lie before the rule's boundary.
int64_t before_boundary(const SparsePlan& plan, const SparseRule& rule, int64_t unit) {
  const int64_t rest = rule.boundary - unit * kSparseUnit;
  return std::clamp<int64_t>(rest, 0, sparse_unit_numel(plan, unit));
}

// Removes the ties behind the boundary from a unit gathered with all of them.
void drop_late_ties(const SparsePlan& plan, const SparseRule& rule, int64_t unit,
                    SparseScratch* scratch) {
  const int64_t origin = unit * kSparseUnit;
  int64_t kept = 0;
  for (int64_t k = 0; k < scratch->count; ++k) {
    const uint32_t bits = bits_at(plan, scratch->values, k);
    if (!sparse_keeps(bits, origin + scratch->positions[k], rule)) continue;
    scratch->positions[kept] = scratch->positions[k];
    std::memcpy(scratch->values + kept * plan.element_bytes, &bits,
                static_cast<size_t>(plan.element_bytes));
    ++kept;
  }
  scratch->count = kept;
}

void bits_of_positions(SparseScratch* scratch) {
  std::memset(scratch->bits, 0, sizeof(scratch->bits));
  for (int64_t k = 0; k < scratch->count; ++k) {
    const uint32_t position = scratch->positions[k];
    scratch->bits[position / 8] |= static_cast<uint8_t>(1u << (position % 8));
  }
}

// Gathers a unit piece by piece, and calls after_piece(elements done, of how many) after each.
template <class AfterPiece>
void gather(const SparsePlan& plan, const SparseRule& rule, const void* x, int64_t unit,
            bool as_bits, SparseScratch* scratch, AfterPiece after_piece) {
  constexpr int64_t kPiece = 1024;
  const auto run = QVLMEM_SIMD_PICK(sparse_gather_run);
  const char* const from = unit_of(plan, x, unit);
  const int64_t n = sparse_unit_numel(plan, unit);
  const int64_t ties = before_boundary(plan, rule, unit);
  const bool split = ties > 0 && ties < n;  // at most one unit
  const uint32_t cut = ties > 0 ? rule.cut - 1 : rule.cut;
  scratch->count = 0;
  scratch->largest_key = 0;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, n);
    scratch->count += static_cast<int64_t>(run(
        from + begin * plan.element_bytes, plan.element_bytes, static_cast<size_t>(end - begin),
        rule.key_mask, cut, static_cast<size_t>(begin),
        scratch->values + scratch->count * plan.element_bytes, scratch->positions + scratch->count,
        as_bits && !split ? scratch->bits + begin / 8 : nullptr, &scratch->largest_key));
    after_piece(end, n);
  }
  if (split) {
    drop_late_ties(plan, rule, unit, scratch);
    if (as_bits) bits_of_positions(scratch);
  }
}

// Writes a gathered unit to its place, bit by bit.
class Placer {
 public:
  Placer(const SparsePlan& plan, const SparsePlacing& placing, void* indices, void* values)
      : scratch_(*placing.scratch),
        base_(placing.unit * kSparseUnit),
        wide_(sparse_wide_indices(plan.numel)),
        stream_(sparse_streams(plan)),
        element_bytes_(plan.element_bytes),
        indices_(static_cast<char*>(indices) + placing.offset * index_bytes()),
        values_(static_cast<char*>(values) + placing.offset * element_bytes_) {}

  // The first `count` entries, but for a cache line that more are to come to.
  void advance(int64_t count) {
    place_indices(whole_lines(indices_, count, index_bytes()));
    place_values(whole_lines(values_, count, element_bytes_));
  }

  void finish() {
    place_indices(scratch_.count);
    place_values(scratch_.count);
  }

 private:
  int64_t index_bytes() const { return wide_ ? 8 : 4; }

  // The most entries, up to `count`, that end where a cache line does.
  static int64_t whole_lines(const char* out, int64_t count, int64_t entry_bytes) {
    const uintptr_t beyond = reinterpret_cast<uintptr_t>(out + count * entry_bytes) % 64;
    return count - static_cast<int64_t>(beyond) / entry_bytes;
  }

  void place_indices(int64_t end) {
    const int64_t begin = index_end_;
    if (end <= begin) return;
    if (wide_) {
      int64_t* out = reinterpret_cast<int64_t*>(indices_);
      for (int64_t k = begin; k < end; ++k) out[k] = base_ + scratch_.positions[k];
    } else {
      place_(scratch_.positions + begin, static_cast<size_t>(end - begin),
             static_cast<int32_t>(base_), stream_, reinterpret_cast<int32_t*>(indices_) + begin);
    }
    index_end_ = end;
  }

  void place_values(int64_t end) {
    if (end <= value_end_) return;
    const int64_t begin = value_end_ * element_bytes_;
    const size_t bytes = static_cast<size_t>(end * element_bytes_ - begin);
    if (stream_) {
      stream_copy_(scratch_.values + begin, bytes, values_ + begin);
    } else {
      std::memcpy(values_ + begin, scratch_.values + begin, bytes);
    }
    value_end_ = end;
  }

  const SparseScratch& scratch_;
  const int64_t base_;
  const bool wide_, stream_;
  const int64_t element_bytes_;
  char* const indices_;
  char* const values_;
  int64_t index_end_ = 0, value_end_ = 0;
  decltype(&portable::sparse_place_run) place_ = QVLMEM_SIMD_PICK(sparse_place_run);
  decltype(&portable::sparse_stream_copy) stream_copy_ = QVLMEM_SIMD_PICK(sparse_stream_copy);
};

template <class Index>
Status densify(const SparsePlan& plan, const Index* indices, const void* values, int64_t nnz,
               int64_t unit_begin, int64_t unit_end, void* y) {
  const auto scatter = QVLMEM_SIMD_PICK(sparse_scatter_run);
  const SparsePositions kind =
      sizeof(Index) == 4 ? SparsePositions::kInt32 : SparsePositions::kInt64;
  // Whatever the order of indices, neighbouring ranges of units agree on where one ends and the
  // next begins, so every entry is looked at by just one of them.
  const auto first_of = [&](int64_t unit) {
    if (unit == 0) return int64_t{0};
    if (unit == plan.unit_count) return nnz;
    const auto before = [](Index index, int64_t bound) { return index < bound; };
    const Index* found = std::lower_bound(indices, indices + nnz, unit * kSparseUnit, before);
    return static_cast<int64_t>(found - indices);
  };
  if (unit_begin == unit_end) return Status::kOk;
  const int64_t limit = first_of(unit_end);
  const int64_t next =
      scatter(indices, kind, 0, first_of(unit_begin), limit, values, plan.element_bytes,
              unit_begin * kSparseUnit, std::min(unit_end * kSparseUnit, plan.numel),
              sparse_streams(plan), y);
  return next == limit ? Status::kOk : Status::kCorrupt;
}

}  // namespace

void sparse_count_keys_cpu(const SparsePlan& plan, const void* x, int64_t unit_begin,
                           int64_t unit_end, uint32_t key_mask, uint32_t low, uint32_t high,
                           int64_t* counts) noexcept {
  const auto count = QVLMEM_SIMD_PICK(sparse_count_run);
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const size_t n = static_cast<size_t>(sparse_unit_numel(plan, unit));
    counts[unit - unit_begin] = static_cast<int64_t>(
        count(unit_of(plan, x, unit), plan.element_bytes, n, key_mask, low, high));
  }
}

void sparse_count_kept_cpu(const SparsePlan& plan, const SparseRule& rule, const void* x,
                           int64_t unit_begin, int64_t unit_end, int64_t* counts) noexcept {
  const auto count = QVLMEM_SIMD_PICK(sparse_count_run);
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const char* values = unit_of(plan, x, unit);
    const size_t n = static_cast<size_t>(sparse_unit_numel(plan, unit));
    const size_t ties = static_cast<size_t>(before_boundary(plan, rule, unit));
    const size_t early =
        ties == 0 ? 0 : count(values, plan.element_bytes, ties, rule.key_mask, rule.cut, rule.cut);
    const size_t above =
        count(values, plan.element_bytes, n, rule.key_mask, rule.cut + 1, rule.key_mask);
    counts[unit - unit_begin] = static_cast<int64_t>(early + above);
  }
}

bool sparse_sample_cpu(const SparsePlan& plan, const void* x, int64_t rank, uint32_t* keys,
                       SparseKeyRange* range) noexcept {
  const uint32_t mask = sparse_magnitude_mask(plan.dtype);
  const SparseSampling sampling = sparse_sampling(plan.numel, rank);
  const int64_t place = sampling.place, margin = sampling.margin;
  int64_t n = 0, zeros = 0;
  for (int64_t run = 0; run < sampling.runs; ++run) {
    const int64_t begin = sparse_sample_begin(sampling, run);
    for (int64_t i = begin; i < std::min(begin + kSparseSampleRun, plan.numel); ++i) {
      const uint32_t key = bits_at(plan, x, i) & mask;
      keys[n++] = key;
      zeros += key == 0;
    }
  }
  if (place + margin <= zeros) {  // what follows would come to the same, but take longer
    *range = sparse_key_range(1, 1);
    return true;
  }
  uint32_t* const middle = keys + place - 1;
  std::nth_element(keys, middle, keys + n);
  // Zeros stay below the range: they may be most of the tensor, and whoever searches knows already
  // that there are too few of them. Where the sample ends, anything may be beyond.
  uint32_t low = 1, high = mask;
  if (place > margin) {
    std::nth_element(keys, middle - margin, middle);
    low = std::max(middle[-margin], low);
  }
  if (place + margin <= n) {
    std::nth_element(middle, middle + margin, keys + n);
    high = middle[margin];
  }
  *range = sparse_key_range(low, std::max(low, high));
  return *middle == 0;
}

void sparse_histogram_cpu(const SparsePlan& plan, const void* x, int64_t unit_begin,
                          int64_t unit_end, const SparseKeyRange& range,
                          SparseHistogram* histogram) noexcept {
  const auto count = QVLMEM_SIMD_PICK(sparse_histogram_run);
  const uint32_t mask = sparse_magnitude_mask(plan.dtype);
  // 32-bit counts hold this many units.
  constexpr int64_t kUnits = (int64_t{1} << 31) / kSparseUnit;
  for (int64_t begin = unit_begin; begin < unit_end; begin += kUnits) {
    SparseRunHistogram part{};
    for (int64_t unit = begin; unit < std::min(begin + kUnits, unit_end); ++unit) {
      const size_t n = static_cast<size_t>(sparse_unit_numel(plan, unit));
      count(unit_of(plan, x, unit), plan.element_bytes, n, mask, range, &part);
    }
    histogram->below += part.below;
    for (int bin = 0; bin < kSparseBins; ++bin) {
      histogram->bins[bin] += int64_t{part.bins[0][bin]} + part.bins[1][bin];
    }
  }
}

int64_t sparse_boundary_cpu(const SparsePlan& plan, const void* x, int64_t unit, uint32_t key,
                            int64_t nth) noexcept {
  const char* values = unit_of(plan, x, unit);
  const uint32_t mask = sparse_magnitude_mask(plan.dtype);
  int64_t i = 0;
  while (nth > 0) nth -= (bits_at(plan, values, i++) & mask) == key;
  return unit * kSparseUnit + i;
}

void sparse_gather_cpu(const SparsePlan& plan, const SparseRule& rule, const void* x, int64_t unit,
                       bool as_bits, SparseScratch* scratch) noexcept {
  gather(plan, rule, x, unit, as_bits, scratch, [](int64_t, int64_t) {});
}

void sparse_place_cpu(const SparsePlan& plan, const SparsePlacing& placing, void* indices,
                      void* values) noexcept {
  if (placing.scratch != nullptr) Placer(plan, placing, indices, values).finish();
}

void sparse_gather_and_place_cpu(const SparsePlan& plan, const SparseRule& rule, const void* x,
                                 int64_t unit, const SparsePlacing& placing, void* indices,
                                 void* values, SparseScratch* scratch) noexcept {
  if (placing.scratch == nullptr) return sparse_gather_cpu(plan, rule, x, unit, false, scratch);
  Placer placer(plan, placing, indices, values);
  gather(plan, rule, x, unit, false, scratch,
         [&](int64_t done, int64_t n) { placer.advance(placing.scratch->count * done / n); });
  placer.finish();
}

Status sparse_densify_cpu(const SparsePlan& plan, const int32_t* indices, const void* values,
                          int64_t nnz, int64_t unit_begin, int64_t unit_end, void* y) noexcept {
  return densify(plan, indices, values, nnz, unit_begin, unit_end, y);
}

Status sparse_densify_cpu(const SparsePlan& plan, const int64_t* indices, const void* values,
                          int64_t nnz, int64_t unit_begin, int64_t unit_end, void* y) noexcept {
  return densify(plan, indices, values, nnz, unit_begin, unit_end, y);
}

}  // namespace qvlmem
