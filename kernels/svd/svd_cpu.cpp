// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/base/float_bits.h"
#include "kernels/base/philox.h"
#include "kernels/svd/svd.h"
#include "kernels/svd/svd_simd.h"

namespace qvlmem {

SvdScan svd_scan_cpu(const void* x, DType dtype, int64_t n) noexcept {
  return QVLMEM_SIMD_PICK(svd_scan_run)(x, dtype, static_cast<size_t>(n));
}

void svd_random_signs(uint64_t seed, uint16_t stream, int64_t begin, int64_t end,
                      float* signs) noexcept {
  constexpr int64_t kWordBits = 32, kBlockBits = 4 * kWordBits;  // one Philox block
  const uint64_t first_counter = static_cast<uint64_t>(stream) << 40;
  PhiloxBlock block = {};
  for (int64_t i = begin; i < end;) {
    if (i == begin || i % kBlockBits == 0) {
      block = philox4x32(seed, first_counter + static_cast<uint64_t>(i / kBlockBits));
    }
    const uint32_t word = block.word[i % kBlockBits / kWordBits];
    const int64_t stop = std::min(end, (i / kWordBits + 1) * kWordBits);
    for (uint32_t bit = static_cast<uint32_t>(i % kWordBits); i < stop; ++i, ++bit) {
      // The bit becomes the sign of 1.0f.
      *signs++ = bits_to_float(0x3f800000u | (word >> bit << 31));
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
