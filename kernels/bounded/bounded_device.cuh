// SPDX-License-Identifier: Apache-2.0
// What bounded's kernels share: units, rows within them, and the workspace.
#pragma once

#include "kernels/bounded/bounded_cuda.h"
#include "kernels/bounded/bounded_row_search.h"
#include "kernels/coding/int_pack_device.cuh"
#include "kernels/coding/unit_ends_device.cuh"

namespace qvlmem {

struct BoundedShape {
  int64_t rows, cols, values, unit_count, rows_per_unit;
  int64_t unit_values;    // of a full unit
  Divisor units_per_row;  // of units
  Divisor row_values;     // of positions in a unit: one row where not fused
  int pieces;             // of a full unit
  bool fused, vectors;
  bool one_step_a_vector;  // no vector has values of two rows
};

// values: the tensor; element_bytes: of it.
inline BoundedShape bounded_shape(const BoundedPlan& plan, const void* values, int element_bytes) {
  const int64_t most = int64_t{1} << 30;  // no position in a unit is as large
  const int64_t unit_values = plan.fused ? plan.rows_per_unit * plan.cols : plan.unit_cols;
  // Where whole units and rows of units begin at multiples of a vector: those of one row do.
  const int64_t apart = plan.fused ? unit_values : plan.cols;
  return {plan.rows,
          plan.cols,
          plan.rows * plan.cols,
          plan.unit_count,
          plan.rows_per_unit,
          unit_values,
          Divisor(plan.units_per_row > 0 ? plan.units_per_row : 1, plan.unit_count),
          Divisor(plan.fused && plan.cols > 0 ? plan.cols : most, most),
          static_cast<int>(ceil_div(unit_values, kPieceValues)),
          plan.fused,
          is_aligned(values, 16) &&
              (plan.rows == 1 || plan.unit_count == 1 || apart * element_bytes % 16 == 0),
          !plan.fused || plan.cols * element_bytes % 16 == 0};
}

struct UnitSpan {
  int64_t row;    // its first
  int64_t begin;  // flat position of its first value
  int n;          // values
};

__device__ inline UnitSpan unit_span(const BoundedShape& shape, int64_t unit) {
  if (shape.fused) {
    const int64_t row = unit * shape.rows_per_unit, begin = row * shape.cols;
    return {row, begin, static_cast<int>(min(shape.unit_values, shape.values - begin))};
  }
  int64_t in_row = unit;
  const int64_t row = shape.units_per_row.split(&in_row);
  const int64_t col = in_row * shape.unit_values;
  return {row, row * shape.cols + col, static_cast<int>(min(shape.unit_values, shape.cols - col))};
}

// The steps of the n values in turn that are a vector, of which the first is value `at` of a unit.
// REQUIRES: n > 0.
class StepsInTurn {
 public:
  __device__ StepsInTurn(const BoundedShape& shape, const UnitSpan& span, const float* step, int at,
                         int n)
      : shape_(shape), n_(n) {
    int64_t in_row = at;
    step_ = step + span.row + shape.row_values.split(&in_row);
    left_ = shape.one_step_a_vector ? n : static_cast<int>(shape.row_values.value() - in_row);
  }

  // Whether value k, for k = 0, 1, ... in turn, has another step than the one before: it is step()
  // then.
  __device__ bool enters(int k) {
    if (k == 0) return true;
    if (shape_.one_step_a_vector || k >= n_ || k < left_) return false;
    left_ += static_cast<int>(shape_.row_values.value());
    ++step_;
    return true;
  }
  __device__ float step() const { return *step_; }

 private:
  const BoundedShape& shape_;
  const float* step_;
  int n_, left_;
};

// Where the workspace has what.
struct BoundedWorkspace {
  int64_t* ends;    // where units begin and end
  int32_t* pieces;  // of each unit's pieces: where its payload begins in the unit's
  // While long rows are searched: their states before and after a look, and sums over units of 16
  // bytes each, with how many of a row are there.
  BoundedRowSearch* rows[2];
  BoundedTarget* target;
  uint32_t* arrived;
  void* parts;
};

constexpr int kBoundedPartBytes = 16;
static_assert(sizeof(BoundedMoments) == kBoundedPartBytes, "sums share their place");
static_assert(sizeof(BoundedError) == kBoundedPartBytes, "sums share their place");

// Returns the bytes that decoding needs of it, or encoding.
inline int64_t bounded_place_workspace(const BoundedPlan& plan, bool encode, void* base,
                                       BoundedWorkspace* workspace) {
  const BoundedShape shape = bounded_shape(plan, nullptr, 1);
  int64_t at = 0;
  const auto take = [&](int64_t count, int64_t bytes) {
    void* const place = static_cast<char*>(base) + at;
    at += ceil_div(count * bytes, 16) * 16;
    return place;
  };
  workspace->ends = static_cast<int64_t*>(take(plan.unit_count + 1, sizeof(int64_t)));
  workspace->pieces = static_cast<int32_t*>(take(plan.unit_count * shape.pieces, sizeof(int32_t)));
  if (!encode || plan.fused) return at;
  for (BoundedRowSearch*& rows : workspace->rows) {
    rows = static_cast<BoundedRowSearch*>(take(plan.rows, sizeof(BoundedRowSearch)));
  }
  workspace->target = static_cast<BoundedTarget*>(take(1, sizeof(BoundedTarget)));
  workspace->arrived = static_cast<uint32_t*>(take(plan.rows, sizeof(uint32_t)));
  workspace->parts = take(plan.unit_count, kBoundedPartBytes);
  return at;
}

// The part of bounded_find_cuda that finds steps.
cudaError_t bounded_steps_cuda(const BoundedPlan& plan, const void* x, DType dtype,
                               const BoundedTarget& target, BoundedLooks looks, float* step,
                               BoundedFound* found, void* workspace, cudaStream_t stream) noexcept;

}  // namespace qvlmem
