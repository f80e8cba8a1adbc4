// SPDX-License-Identifier: Apache-2.0
// The parts of a low-rank factorisation x ~ u v that need no linear algebra: one pass over x, the
// signs that sample its range, and the rules that pick a rank. The factorisation itself is matrix
// products: ops/svd/.
//
// Energy is the sum of squared singular values, which is the sum of squared elements.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"

namespace qvlmem {

struct SvdScan {
  double sum_squares = 0;  // float64 holds it: (2^128)^2 * 2^63 < 2^1023. No use where not finite
  uint32_t magnitude_bits = 0;  // the largest |value| as the bits of a float32; NaN beyond infinity
};

inline bool svd_scan_is_finite(const SvdScan& scan) { return scan.magnitude_bits < 0x7f800000u; }

// Scans n elements at x. REQUIRES: is_lossy_dtype(dtype). The sum is rounded in one order, whatever
// the ISA; a caller that cuts x into pieces gets the same bits wherever it cuts at the same places
// and adds in the same order.
SvdScan svd_scan_cpu(const void* x, DType dtype, int64_t n) noexcept;

// signs[i - begin] = +1 or -1, each with probability 1/2, for i in [begin, end): Philox keyed by
// `seed`, the same for every split of the range. Sequences of different `stream` are independent.
// REQUIRES: 0 <= begin <= end < 2^47.
void svd_random_signs(uint64_t seed, uint16_t stream, int64_t begin, int64_t end,
                      float* signs) noexcept;

// The smallest r in [1, count] for which values[r] + ... + values[count - 1] <= allowed; count + 1
// where allowed < 0. Negative values (rounded zeros) count as zero. REQUIRES: values descending,
// count >= 1.
int64_t svd_rank_within(const double* values, int64_t count, double allowed) noexcept;

// The largest r <= min(m, n) for which r * (m + n) <= ratio * m * n: the two factors then take at
// most that share of the matrix's bytes. 1 where not even one column fits, for a factorisation has
// at least one. REQUIRES: m, n >= 1, m * n and m + n fit in 63 bits, ratio in (0, 1].
int64_t svd_rank_of_ratio(int64_t m, int64_t n, double ratio) noexcept;

}  // namespace qvlmem
