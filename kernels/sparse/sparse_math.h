// SPDX-License-Identifier: Apache-2.0
// Which elements are stored: one text for host and device. Elements are compared as integers: the
// bit pattern without its sign orders magnitudes, NaN and infinities above every finite value.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/macros.h"

namespace qvlmem {

// An element's key is its bit pattern & key_mask. Element i is stored where its key is above `cut`,
// or equal to it and i < boundary: of equal magnitudes the earlier stay. A boundary above 0 needs a
// cut above 0: zeros are never stored.
struct SparseRule {
  uint32_t key_mask;
  uint32_t cut;
  int64_t boundary;
};

QVLMEM_HD inline bool sparse_keeps(uint32_t bits, int64_t i, const SparseRule& rule) {
  const uint32_t key = bits & rule.key_mask;
  return key > rule.cut || (key == rule.cut && i < rule.boundary);
}

// Keys of magnitudes: every bit but the sign.
constexpr uint32_t sparse_magnitude_mask(DType dtype) {
  return dtype == DType::kFloat32 ? 0x7fffffffu : 0x7fffu;
}

// The smallest magnitude key that is not finite.
constexpr uint32_t sparse_infinity_key(DType dtype) {
  return dtype == DType::kFloat32 ? 0x7f800000u : (dtype == DType::kFloat16 ? 0x7c00u : 0x7f80u);
}

// Stores what is not zero. Where `prune`, -0.0 is a zero too; else it is a pattern like any other.
constexpr SparseRule sparse_nonzero_rule(DType dtype, bool prune) {
  const uint32_t every_bit = dtype == DType::kFloat32 ? 0xffffffffu : 0xffffu;
  return SparseRule{prune ? sparse_magnitude_mask(dtype) : every_bit, 0, 0};
}

// Zeros that pruning asks for: ceil(threshold * numel). REQUIRES: 0 <= threshold <= 1, numel >= 0.
inline int64_t sparse_zero_target(double threshold, int64_t numel) {
  const double target = std::ceil(threshold * static_cast<double>(numel));
  return target >= static_cast<double>(numel) ? numel : static_cast<int64_t>(target);
}

// Whether COO positions need 64 bits.
constexpr bool sparse_wide_indices(int64_t numel) { return numel > (int64_t{1} << 31); }

}  // namespace qvlmem
