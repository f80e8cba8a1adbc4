// SPDX-License-Identifier: Apache-2.0
// The search for the step of a row that is longer than a unit, one text for host and device: what
// is measured is summed up by units, in an order of its own, and of very long rows first on a
// sample.
#pragma once

#include <cstdint>

#include "kernels/bounded/bounded_math.h"

namespace qvlmem {

// A row of at least twice as many units is first searched on about this many: a step that is nearly
// right needs one look at all of it.
constexpr int64_t kBoundedSampleUnits = 16;

QVLMEM_HD inline bool bounded_is_sampled(int64_t units_per_row) {
  return units_per_row >= 2 * kBoundedSampleUnits;
}

// Sums that are kept side by side while those of units are added up.
constexpr int kBoundedLanes = 256;

// The sum of n parts: part i counts to lane i % kBoundedLanes, and then lanes are added up by
// halves, so that a device need not add them one after another.
template <class Part>
inline Part bounded_total(const Part* parts, int64_t n) {
  Part lanes[kBoundedLanes];
  for (int64_t i = 0; i < n; ++i) bounded_add(parts[i], &lanes[i % kBoundedLanes]);
  for (int half = kBoundedLanes / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) bounded_add(lanes[k + half], &lanes[k]);
  }
  return lanes[0];
}

// Use: bounded_row_begin; then while !done, measure search.step on every stride-th unit from the
// first, and update. In the end search.best is the step, or 0 where none holds.
struct BoundedRowSearch {
  BoundedSearch search;
  BoundedMoments whole;    // of all values
  BoundedMoments moments;  // of the units that are looked at, about
  int64_t stride = 1;
  bool done = false;
};

// The units of a row that are looked at.
QVLMEM_HD inline int64_t bounded_row_units(const BoundedRowSearch& row, int64_t units_per_row) {
  return (units_per_row + row.stride - 1) / row.stride;
}

// Begins to look at every stride-th unit, with the step `start` where that is not 0.
QVLMEM_HD inline void bounded_row_open(const BoundedTarget& target, DType dtype, int64_t cols,
                                       int64_t units_per_row, int64_t stride, float start,
                                       BoundedRowSearch* row) {
  row->stride = stride;
  const double share = static_cast<double>(bounded_row_units(*row, units_per_row)) /
                       static_cast<double>(units_per_row);
  row->moments = row->whole;
  row->moments.sum_squares *= share;
  const int64_t n = static_cast<int64_t>(share * static_cast<double>(cols)) + 1;
  row->search = bounded_search(target, row->moments, n, dtype);
  if (start > 0 && start != row->search.step) {
    row->search.step = start;
    row->search.fallback = 0;
  }
}

// Goes on to the whole row where a sample has told what it can.
QVLMEM_HD inline void bounded_row_advance(const BoundedTarget& target, DType dtype, int64_t cols,
                                          int64_t units_per_row, BoundedRowSearch* row) {
  if (row->search.done && row->stride > 1) {
    bounded_row_open(target, dtype, cols, units_per_row, 1, row->search.best, row);
  }
  row->done = row->search.done && row->stride == 1;
}

// moments: of all values of the row. REQUIRES: they are finite, cols > 0.
QVLMEM_HD inline BoundedRowSearch bounded_row_begin(const BoundedTarget& target,
                                                    const BoundedMoments& moments, DType dtype,
                                                    int64_t cols, int64_t units_per_row) {
  BoundedRowSearch row;
  row.whole = moments;
  const bool sample = bounded_is_sampled(units_per_row);
  bounded_row_open(target, dtype, cols, units_per_row,
                   sample ? units_per_row / kBoundedSampleUnits : 1, 0.0f, &row);
  bounded_row_advance(target, dtype, cols, units_per_row, &row);
  return row;
}

// error: of the units that were looked at, with search.step.
QVLMEM_HD inline void bounded_row_update(const BoundedTarget& target, const BoundedError& error,
                                         DType dtype, int64_t cols, int64_t units_per_row,
                                         BoundedRowSearch* row) {
  bounded_search_update(bounded_excess(target, row->moments, error), &row->search);
  bounded_row_advance(target, dtype, cols, units_per_row, row);
}

}  // namespace qvlmem
