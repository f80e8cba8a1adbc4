// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/svd/svd.h"
#include "kernels/svd/svd_math.h"
#include "kernels/svd/svd_simd.h"

namespace qvlmem {

SvdScan svd_scan_cpu(const void* x, DType dtype, int64_t n) noexcept {
  return QVLMEM_SIMD_PICK(svd_scan_run)(x, dtype, static_cast<size_t>(n));
}

void svd_random_signs(uint64_t seed, uint16_t stream, int64_t begin, int64_t end,
                      float* signs) noexcept {
  PhiloxBlock block = {};
  for (int64_t i = begin; i < end;) {
    if (i == begin || i % kSvdBlockSigns == 0) {
      block = svd_sign_block(seed, stream, i / kSvdBlockSigns);
    }
    const uint32_t word = block.word[i % kSvdBlockSigns / kSvdSignBits];
    const int64_t stop = std::min(end, (i / kSvdSignBits + 1) * kSvdSignBits);
    for (int bit = static_cast<int>(i % kSvdSignBits); i < stop; ++i, ++bit) {
      *signs++ = svd_sign(word, bit);
    }
  }
}

int64_t svd_rank_within(const double* values, int64_t count, double allowed) noexcept {
  if (!(allowed >= 0)) return count + 1;
  double tail = 0;
  for (int64_t r = count; r > 1; --r) {
    tail += std::max(values[r - 1], 0.0);
    if (tail > allowed) return r;
  }
  return 1;
}

int64_t svd_rank_of_ratio(int64_t m, int64_t n, double ratio) noexcept {
  const double budget = ratio * (static_cast<double>(m) * static_cast<double>(n));
  const double column = static_cast<double>(m) + static_cast<double>(n);
  int64_t rank = static_cast<int64_t>(budget / column);
  // The division may have been rounded across an integer.
  if (static_cast<double>(rank + 1) * column <= budget) ++rank;
  if (static_cast<double>(rank) * column > budget) --rank;
  return std::clamp<int64_t>(rank, 1, std::min(m, n));
}

}  // namespace qvlmem
