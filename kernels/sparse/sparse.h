// SPDX-License-Identifier: Apache-2.0
// Sparse tensors: the elements that are not zero (or survive pruning) as values and positions.
//
// Values are the elements' own bits, in flat order. Positions come as COO, sorted flat positions
// (int32, int64 above 2^31 elements), or in one of three compact forms, little endian:
//
//   every form   uint16 count of stored elements for each unit of 16384 elements, then:
//   kBitmask     one bit an element, the first in the lowest bit; ceil(numel / 8) bytes
//   kBlock8      blocks of 256 elements: uint8 count & 255 of each block; one bit a block, set
//                where all 256 are stored; then uint8 position within the block of each element
//   kUnit16      uint16 position within the unit of each stored element
//
// Bits beyond the last element or block are 0. The form is the smallest for the number of stored
// elements; for 0.4% to 12% kBlock8, below it kUnit16, above it kBitmask.
//
// Work is cut into units: a caller may hand any range of them to any thread.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/status.h"
#include "kernels/base/stream.h"
#include "kernels/sparse/sparse_math.h"
#include "kernels/sparse/sparse_select.h"

namespace qvlmem {

constexpr int64_t kSparseUnit = 16384;
constexpr int64_t kSparseBlock = 256;

// Written into frames: never renumber.
enum class SparseForm : uint8_t { kBitmask = 0, kBlock8 = 1, kUnit16 = 2 };
constexpr int kSparseFormCount = 3;

struct SparsePlan {
  int64_t numel = 0;
  DType dtype = DType::kFloat32;
  int64_t element_bytes = 4;
  int64_t unit_count = 0;
  int64_t block_count = 0;
  // Set by set_sparse_layout; offsets in bytes from the start of the index.
  int64_t nnz = 0;
  SparseForm form = SparseForm::kBitmask;
  int64_t values_bytes = 0;
  int64_t mask_offset = 0;          // kBitmask: the bits
  int64_t block_counts_offset = 0;  // kBlock8: the bytes of counts
  int64_t full_bits_offset = 0;     // kBlock8: the bits of full blocks
  int64_t positions_offset = 0;     // kBlock8, kUnit16
  int64_t index_bytes = 0;
};

// dtype: float32, float16 or bfloat16, else kInvalidArgument; kOverflow where a size does not fit.
Status make_sparse_plan(int64_t numel, DType dtype, SparsePlan* plan) noexcept;

// Lays out the index of nnz stored elements. kInvalidArgument where nnz is not in 0..numel or the
// form is none.
Status set_sparse_layout(int64_t nnz, SparseForm form, SparsePlan* plan) noexcept;

// The form with the smallest index; of equal ones the first. REQUIRES: nnz in 0..plan.numel.
SparseForm sparse_smallest_form(const SparsePlan& plan, int64_t nnz) noexcept;

inline int64_t sparse_unit_numel(const SparsePlan& plan, int64_t unit) {
  const int64_t rest = plan.numel - unit * kSparseUnit;
  return rest < kSparseUnit ? rest : kSparseUnit;
}

// Whether what is written goes past the caches: by the size of the dense tensor.
inline bool sparse_streams(const SparsePlan& plan) {
  return plan.numel * plan.element_bytes >= kStreamBytes;
}

// ---- Counting and selection ----

// counts[u - unit_begin]: elements of unit u whose bits & key_mask lie in low..high, both included.
// Zeros, NaN and infinities, and ties are all such ranges.
void sparse_count_keys_cpu(const SparsePlan& plan, const void* x, int64_t unit_begin,
                           int64_t unit_end, uint32_t key_mask, uint32_t low, uint32_t high,
                           int64_t* counts) noexcept;

// counts[u - unit_begin]: elements of unit u that `rule` stores.
void sparse_count_kept_cpu(const SparsePlan& plan, const SparseRule& rule, const void* x,
                           int64_t unit_begin, int64_t unit_end, int64_t* counts) noexcept;

// A first range for the search of the rank-th smallest magnitude key, from an evenly spaced sample
// (the same for the same tensor). keys: room for kSparseSample, overwritten. True where that key is
// probably 0, which says that the tensor has `rank` zeros. REQUIRES: 1 <= rank <= plan.numel.
bool sparse_sample_cpu(const SparsePlan& plan, const void* x, int64_t rank, uint32_t* keys,
                       SparseKeyRange* range) noexcept;

// Adds the units' magnitude keys to *histogram.
void sparse_histogram_cpu(const SparsePlan& plan, const void* x, int64_t unit_begin,
                          int64_t unit_end, const SparseKeyRange& range,
                          SparseHistogram* histogram) noexcept;

// The flat position just after the nth (1 is the first) element of the unit with magnitude key
// `key`: a SparseRule's boundary. REQUIRES: the unit has as many.
int64_t sparse_boundary_cpu(const SparsePlan& plan, const void* x, int64_t unit, uint32_t key,
                            int64_t nth) noexcept;

// ---- COO ----

// What one unit stores; a caller keeps one a thread. Vector stores run beyond `count`.
struct SparseScratch {
  alignas(64) unsigned char values[kSparseUnit * 4 + 64];  // of plan.element_bytes each
  alignas(64) uint16_t positions[kSparseUnit + 32];        // within the unit
  alignas(64) uint8_t bits[kSparseUnit / 8];               // as kBitmask
  int64_t count;
  uint32_t largest_key;  // of all elements of the unit, where the rule can refuse any
};

// Whether the unit that was gathered last holds NaN or an infinity that the rule refuses.
inline bool sparse_refuses(const SparsePlan& plan, const SparseRule& rule,
                           const SparseScratch& scratch) {
  return rule.key_mask == sparse_magnitude_mask(plan.dtype) &&
         scratch.largest_key >= sparse_infinity_key(plan.dtype);
}

// Reads unit `unit` once and gathers what `rule` stores, with its positions or, where as_bits, its
// bits.
void sparse_gather_cpu(const SparsePlan& plan, const SparseRule& rule, const void* x, int64_t unit,
                       bool as_bits, SparseScratch* scratch) noexcept;

// A unit gathered with positions that becomes entries [offset, offset + scratch->count) of indices
// (int64 where sparse_wide_indices(plan.numel), else int32) and values.
struct SparsePlacing {
  const SparseScratch* scratch = nullptr;  // nullptr: nothing to place
  int64_t unit = 0;
  int64_t offset = 0;
};

void sparse_place_cpu(const SparsePlan& plan, const SparsePlacing& placing, void* indices,
                      void* values) noexcept;

// sparse_gather_cpu of a unit (with positions) and sparse_place_cpu of another one that was
// gathered into another scratch, by turns, some cache lines at a time: the one reads memory while
// the other writes it.
void sparse_gather_and_place_cpu(const SparsePlan& plan, const SparseRule& rule, const void* x,
                                 int64_t unit, const SparsePlacing& placing, void* indices,
                                 void* values, SparseScratch* scratch) noexcept;

// Decodes units of y (plan.numel elements) from nnz COO entries; zero where there is none.
// REQUIRES: nnz <= plan.numel. Any bytes are safe as indices: kCorrupt where they are not strictly
// increasing within 0..plan.numel - 1 (some unit then says so), and the units of y are unspecified.
Status sparse_densify_cpu(const SparsePlan& plan, const int32_t* indices, const void* values,
                          int64_t nnz, int64_t unit_begin, int64_t unit_end, void* y) noexcept;
Status sparse_densify_cpu(const SparsePlan& plan, const int64_t* indices, const void* values,
                          int64_t nnz, int64_t unit_begin, int64_t unit_end, void* y) noexcept;

// ---- Compact forms (plan with its layout set; an index may lie at any address) ----

// Writes the units' part of index and values. offsets[u]: stored elements before unit u, with
// offsets[unit_count] == plan.nnz. kNonFinite where a pruning rule meets NaN or an infinity.
// kInvalidArgument where a unit stores another number of elements than offsets says (x changed
// since it was counted); nothing is written outside its part.
Status sparse_encode_cpu(const SparsePlan& plan, const SparseRule& rule, const void* x,
                         int64_t unit_begin, int64_t unit_end, const int64_t* offsets, void* index,
                         void* values, SparseScratch* scratch) noexcept;

// Fills offsets (unit_count + 1) from an index's counts. kCorrupt where they do not add up to
// plan.nnz or exceed a unit.
Status sparse_offsets(const SparsePlan& plan, const void* index, int64_t* offsets) noexcept;

// Decodes units of y. REQUIRES: offsets from sparse_offsets. Any bytes are safe as index: kCorrupt
// where they contradict the counts, are not sorted or point outside; y is then unspecified.
Status sparse_decode_cpu(const SparsePlan& plan, const void* index, const int64_t* offsets,
                         const void* values, int64_t unit_begin, int64_t unit_end,
                         void* y) noexcept;

// The same for one unit: y takes its elements alone, to be read again soon.
Status sparse_decode_unit_cpu(const SparsePlan& plan, const void* index, const int64_t* offsets,
                              const void* values, int64_t unit, void* y) noexcept;

// Flat positions of the units' stored elements, at positions[offsets[u]] and on: COO of an index.
// Refuses what sparse_decode_cpu refuses.
Status sparse_positions_cpu(const SparsePlan& plan, const void* index, const int64_t* offsets,
                            int64_t unit_begin, int64_t unit_end, int64_t* positions) noexcept;

}  // namespace qvlmem
