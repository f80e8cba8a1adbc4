// SPDX-License-Identifier: Apache-2.0
#include "kernels/bounded/bounded_coded_simd.h"

#include "kernels/base/simd.h"

QVLMEM_SIMD_BEGIN
namespace {

constexpr size_t N = kLanes32;
using DU8 = hn::Rebind<uint8_t, DI32>;  // as many bytes as there are 32-bit lanes

}  // namespace

uint64_t bounded_bit_lengths(const int32_t* q, size_t n) {
  const DI32 di;
  // A float's exponent tells the length (of more than 24 bits, after rounding).
  const VI32 below = hn::Set(di, 126);
  VI32 sums = hn::Zero(di);  // 31 a value: enough for 2^26 of them
  for (size_t i = 0; i < n; i += N) {
    const VF32 magnitude = hn::ConvertTo(DF32(), hn::Abs(hn::LoadU(di, q + i)));
    const VI32 exponent = hn::ShiftRight<23>(hn::BitCast(di, magnitude));
    sums = hn::Add(sums, hn::Max(hn::Sub(exponent, below), hn::Zero(di)));
  }
  HWY_ALIGN int32_t lanes[N];
  hn::Store(sums, di, lanes);
  uint64_t sum = 0;
  for (const int32_t lane : lanes) sum += static_cast<uint64_t>(lane);
  return sum;
}

bool bounded_split(const int32_t* q, size_t n, uint32_t low_bits, uint8_t largest,
                   uint8_t* symbols) {
  const DI32 di;
  const DU32 du;
  const VU32 one = hn::Set(du, 1u), limit = hn::Set(du, uint32_t{largest});
  VU32 top = hn::Zero(du);
  for (size_t i = 0; i < n; i += N) {
    const VI32 high = hn::ShiftRightSame(hn::LoadU(di, q + i), static_cast<int>(low_bits));
    const VI32 zigzag = hn::Xor(hn::Add(high, high), hn::ShiftRight<31>(high));
    const VU32 symbol = hn::Add(hn::BitCast(du, zigzag), one);
    top = hn::Max(top, symbol);
    const auto fits = hn::Eq(hn::Min(symbol, limit), symbol);
    const VU32 stored = hn::IfThenElseZero(fits, symbol);
    hn::StoreU(hn::DemoteTo(DU8(), hn::BitCast(di, stored)), DU8(), symbols + i);
  }
  HWY_ALIGN uint32_t lanes[N];
  hn::Store(top, du, lanes);
  bool escapes = false;
  for (const uint32_t lane : lanes) escapes |= lane > largest;
  return escapes;
}

void bounded_join(const uint8_t* symbols, size_t n, uint32_t low_bits, int32_t* q) {
  const DI32 di;
  const VI32 one = hn::Set(di, 1);
  for (size_t i = 0; i < n; i += N) {
    const VI32 zigzag = hn::Sub(hn::PromoteTo(di, hn::LoadU(DU8(), symbols + i)), one);
    const VI32 sign = hn::Sub(hn::Zero(di), hn::And(zigzag, one));
    const VI32 high = hn::Xor(hn::ShiftRight<1>(zigzag), sign);
    const VI32 low = hn::LoadU(di, q + i);
    hn::StoreU(hn::Or(hn::ShiftLeftSame(high, static_cast<int>(low_bits)), low), di, q + i);
  }
}

QVLMEM_SIMD_END
