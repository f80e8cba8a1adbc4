// SPDX-License-Identifier: Apache-2.0
#include "kernels/bounded/bounded_unit.h"
#include "kernels/coding/int_pack_simd.h"

namespace qvlmem {
namespace {

// Bytes of a packed unit.
int32_t unit_bytes(const Quantizer& quantizer, const BoundedUnit& unit) {
  const auto measure = QVLMEM_SIMD_PICK(int_pack_measure);
  alignas(64) int32_t q[kPiece];
  uint8_t headers[kPieceBlocks];
  size_t bytes = 1;
  for (int64_t begin = unit.begin; begin < unit.end; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, unit.end);
    quantizer.piece(begin, end, q);
    const auto blocks = static_cast<size_t>(blocks_of(end - begin));
    bytes += blocks + measure(q, blocks, headers);
  }
  return static_cast<int32_t>(bytes);
}

// The largest step of one row that holds.
Status solve_row(const void* x, DType dtype, int64_t n, const BoundedTarget& target, float* step) {
  const auto error_run = QVLMEM_SIMD_PICK(bounded_error_run);
  const auto cols = static_cast<size_t>(n);
  BoundedMoments moments;
  QVLMEM_SIMD_PICK(bounded_moments_run)(x, dtype, cols, &moments);
  if (!bounded_is_finite(moments)) return Status::kNonFinite;
  BoundedSearch search = bounded_search(target, moments, n, dtype);
  while (!search.done) {
    BoundedError error;
    error_run(x, dtype, cols, search.step, &error);
    bounded_search_update(bounded_excess(target, moments, error), &search);
  }
  *step = search.best;
  return search.best > 0 ? Status::kOk : Status::kBoundMissed;
}

}  // namespace

Status bounded_solve_cpu(const BoundedPlan& plan, const void* x, DType dtype,
                         const BoundedTarget& target, int64_t unit_begin, int64_t unit_end,
                         float* step, int32_t* bytes) noexcept {
  const Quantizer quantizer(plan, x, dtype, step);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    for (int64_t r = unit.row_begin; r < unit.row_end; ++r) {
      const Status status =
          solve_row(element(x, dtype, r * plan.cols), dtype, plan.cols, target, &step[r]);
      if (status != Status::kOk) return status;
    }
    bytes[u] = unit_bytes(quantizer, unit);
  }
  return Status::kOk;
}

void bounded_moments_cpu(const BoundedPlan& plan, const void* x, DType dtype, int64_t unit_begin,
                         int64_t unit_end, BoundedMoments* moments) noexcept {
  const auto run = QVLMEM_SIMD_PICK(bounded_moments_run);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    run(element(x, dtype, unit.begin), dtype, static_cast<size_t>(unit.end - unit.begin),
        &moments[u - unit_begin]);
  }
}

void bounded_measure_cpu(const BoundedPlan& plan, const void* x, DType dtype, const float* step,
                         int64_t unit_begin, int64_t unit_end, BoundedError* errors,
                         int32_t* bytes) noexcept {
  const auto run = QVLMEM_SIMD_PICK(bounded_error_run);
  const Quantizer quantizer(plan, x, dtype, step);
  for (int64_t u = unit_begin; u < unit_end; ++u) {
    const BoundedUnit unit = bounded_unit(plan, u);
    run(element(x, dtype, unit.begin), dtype, static_cast<size_t>(unit.end - unit.begin),
        step[unit.row_begin], &errors[u - unit_begin]);
    if (bytes != nullptr) bytes[u] = unit_bytes(quantizer, unit);
  }
}

}  // namespace qvlmem
