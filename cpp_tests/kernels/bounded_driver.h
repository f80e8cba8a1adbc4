// SPDX-License-Identifier: Apache-2.0
// What a caller of the bounded kernels does, on one thread and in any order of units.
#pragma once

#include <vector>

#include "kernels/bounded/bounded.h"
#include "kernels/bounded/bounded_row_search.h"

namespace qvlmem {

struct BoundedEncoded {
  std::vector<float> step;
  std::vector<int32_t> bytes;
  std::vector<uint8_t> packed;
  // Of the last row, where not fused.
  double excess = 0;     // bounded_excess of its step
  int measurements = 0;  // looks at its values that it took
  bool operator==(const BoundedEncoded& other) const {
    return step == other.step && bytes == other.bytes && packed == other.packed;
  }
};

// Finds the step of each long row.
inline Status bounded_search_rows(const BoundedPlan& plan, const void* x, DType dtype,
                                  const BoundedTarget& target, BoundedEncoded* e) {
  std::vector<BoundedMoments> moments(plan.unit_count);
  std::vector<BoundedError> errors(plan.unit_count);
  bounded_moments_cpu(plan, x, dtype, 0, plan.unit_count, moments.data());
  const int64_t units = plan.units_per_row;
  for (int64_t r = 0; r < plan.rows; ++r) {
    const int64_t first = r * units;
    const BoundedMoments sum = bounded_total(&moments[first], units);
    if (!bounded_is_finite(sum)) return Status::kNonFinite;
    e->measurements = 0;
    BoundedRowSearch row = bounded_row_begin(target, sum, dtype, plan.cols, units);
    while (!row.done) {
      const float step = row.search.step;
      const bool whole = row.stride == 1;
      const int64_t count = bounded_row_units(row, units);
      e->step[r] = step;
      for (int64_t i = count; i-- > 0;) {
        const int64_t u = first + i * row.stride;
        bounded_measure_cpu(plan, x, dtype, e->step.data(), u, u + 1, &errors[i], nullptr);
      }
      const BoundedError error = bounded_total(errors.data(), count);
      const double excess = bounded_excess(target, row.moments, error);
      bounded_row_update(target, error, dtype, plan.cols, units, &row);
      if (!whole) continue;
      ++e->measurements;
      if (row.search.best == step) e->excess = excess;
    }
    if (row.search.best == 0) return Status::kBoundMissed;
    e->step[r] = row.search.best;
  }
  bounded_measure_cpu(plan, x, dtype, e->step.data(), 0, plan.unit_count, errors.data(),
                      e->bytes.data());
  return Status::kOk;
}

inline Status bounded_encode(const BoundedPlan& plan, const void* x, DType dtype,
                             const BoundedTarget& target, BoundedEncoded* e) {
  e->step.assign(plan.rows, 0.0f);
  e->bytes.assign(plan.unit_count, 0);
  if (plan.fused) {
    for (int64_t u = plan.unit_count; u-- > 0;) {
      const Status status =
          bounded_solve_cpu(plan, x, dtype, target, u, u + 1, e->step.data(), e->bytes.data());
      if (status != Status::kOk) return status;
    }
  } else {
    const Status status = bounded_search_rows(plan, x, dtype, target, e);
    if (status != Status::kOk) return status;
  }
  int64_t total = 0;
  for (int32_t b : e->bytes) total += b;
  std::vector<int64_t> offset(plan.unit_count + 1);
  const Status status = bounded_offsets(plan, e->bytes.data(), total, offset.data());
  if (status != Status::kOk) return status;
  e->packed.assign(total, 0xee);
  for (int64_t u = plan.unit_count; u-- > 0;) {
    const Status encoded = bounded_encode_cpu(plan, x, dtype, e->step.data(), offset.data(), u,
                                              u + 1, e->packed.data());
    if (encoded != Status::kOk) return encoded;
  }
  return Status::kOk;
}

// The coded form of what `packed` is the packed one of.
inline Status bounded_code(const BoundedPlan& plan, const void* x, DType dtype,
                           const BoundedEncoded& packed, BoundedEncoded* e) {
  e->step = packed.step;
  e->bytes.assign(plan.unit_count, 0);
  std::vector<std::vector<uint8_t>> units(plan.unit_count);
  for (int64_t u = plan.unit_count; u-- > 0;) {
    units[u].assign(bounded_unit_bound(plan, u), 0xee);
    int64_t bytes = 0;
    const Status status =
        bounded_code_cpu(plan, x, dtype, e->step.data(), u, units[u].data(), &bytes);
    if (status != Status::kOk) return status;
    e->bytes[u] = static_cast<int32_t>(bytes);
  }
  e->packed.clear();
  for (int64_t u = 0; u < plan.unit_count; ++u) {
    e->packed.insert(e->packed.end(), units[u].begin(), units[u].begin() + e->bytes[u]);
  }
  return Status::kOk;
}

inline Status bounded_decode(const BoundedPlan& plan, const BoundedEncoded& e, DType dtype,
                             std::vector<uint8_t>* y) {
  y->assign(plan.rows * plan.cols * dtype_bytes(dtype) + 1, 0xcc);
  std::vector<int64_t> offset(plan.unit_count + 1);
  const Status status =
      bounded_offsets(plan, e.bytes.data(), static_cast<int64_t>(e.packed.size()), offset.data());
  if (status != Status::kOk) return status;
  for (int64_t u = plan.unit_count; u-- > 0;) {
    const Status decoded = bounded_decode_cpu(plan, e.packed.data(), offset.data(), e.step.data(),
                                              u, u + 1, y->data(), dtype);
    if (decoded != Status::kOk) return decoded;
  }
  return Status::kOk;
}

}  // namespace qvlmem
