// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "kernels/base/checked.h"
#include "kernels/lossless/little_endian.h"
#include "kernels/lossless/lossless.h"

namespace qvlmem {
namespace {

bool is_complex(DType dtype) {
  return dtype == DType::kComplex32 || dtype == DType::kComplex64 || dtype == DType::kComplex128 ||
         dtype == DType::kBComplex32;
}

LosslessMap map_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kComplex64:
      return {LosslessMap::kFloat, 23};
    case DType::kFloat16:
    case DType::kComplex32:
      return {LosslessMap::kFloat, 10};
    case DType::kBFloat16:
    case DType::kBComplex32:
      return {LosslessMap::kFloat, 7};
    case DType::kFloat64:
    case DType::kComplex128:
      return {LosslessMap::kFloat, 52};
    case DType::kFloat8E4M3FN:
    case DType::kFloat8E4M3FNUZ:
      return {LosslessMap::kFloat, 3};
    case DType::kFloat8E5M2:
    case DType::kFloat8E5M2FNUZ:
      return {LosslessMap::kFloat, 2};
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
      return {LosslessMap::kZigzag, 0};
    case DType::kUInt8:
    case DType::kUInt16:
    case DType::kUInt32:
    case DType::kUInt64:
    case DType::kBool:
    case DType::kFloat8E8M0FNU:
    case DType::kFloat4E2M1FNX2:
      break;
  }
  return {};
}

}  // namespace

Status make_lossless_plan(int64_t count, DType dtype, LosslessPlan* plan) noexcept {
  const int bytes = dtype_bytes(dtype);
  if (count < 0 || bytes == 0) return Status::kInvalidArgument;
  LosslessPlan p;
  p.dtype = dtype;
  p.map = map_of(dtype);
  p.count = count;
  int64_t total, twice;  // twice the total: then no size below can overflow
  if (!checked_mul(count, bytes, &total) || !checked_mul(total, 2, &twice)) {
    return Status::kOverflow;
  }
  p.scalar_bytes = is_complex(dtype) ? bytes / 2 : bytes;
  p.scalars = total / p.scalar_bytes;
  p.unit_scalars = kLosslessUnitBytes / p.scalar_bytes;
  p.unit_count = ceil_div(p.scalars, p.unit_scalars);
  p.header_bytes = lossless_unit_begin(kLosslessFixedBytes + 8 * p.unit_count);
  p.unit_bound_bytes = std::min(kLosslessUnitBytes, total) + kLosslessEntriesBytes;
  p.bound_bytes = p.header_bytes + total + p.unit_count * kLosslessEntriesBytes;
  *plan = p;
  return Status::kOk;
}

void lossless_write_header(const LosslessPlan& plan, uint8_t* bytes) noexcept {
  std::memset(bytes, 0, static_cast<size_t>(plan.header_bytes));
  std::memcpy(bytes, kLosslessMagic, sizeof(kLosslessMagic));
  bytes[4] = static_cast<uint8_t>(plan.dtype);
  write_le64(static_cast<uint64_t>(plan.count), bytes + 8);
}

void lossless_write_unit_end(const LosslessPlan& plan, int64_t unit, int64_t end,
                             uint8_t* bytes) noexcept {
  write_le64(static_cast<uint64_t>(end), bytes + kLosslessFixedBytes + 8 * unit);
  if (unit + 1 < plan.unit_count) {
    std::memset(bytes + end, 0, static_cast<size_t>(lossless_unit_begin(end) - end));
  }
}

Status lossless_read_plan(const uint8_t* bytes, int64_t size, LosslessPlan* plan) noexcept {
  if (size < kLosslessFixedBytes) return Status::kTruncated;
  if (std::memcmp(bytes, kLosslessMagic, 3) != 0) return Status::kCorrupt;
  if (bytes[3] > kLosslessMagic[3] || bytes[4] >= kDTypeCount) return Status::kUnsupported;
  if (bytes[3] != kLosslessMagic[3] || read_le(bytes + 5, 3) != 0) return Status::kCorrupt;
  const uint64_t count = read_le64(bytes + 8);
  LosslessPlan p;
  if (count > static_cast<uint64_t>(INT64_MAX) ||
      make_lossless_plan(static_cast<int64_t>(count), static_cast<DType>(bytes[4]), &p) !=
          Status::kOk) {
    return Status::kCorrupt;
  }
  if (size < p.header_bytes) return Status::kTruncated;
  int64_t end = p.header_bytes;
  for (int64_t unit = 0; unit < p.unit_count; ++unit) {
    const uint64_t word = read_le64(bytes + kLosslessFixedBytes + 8 * unit);
    const int64_t begin = lossless_unit_begin(end);
    if (word < static_cast<uint64_t>(begin) ||
        word > static_cast<uint64_t>(begin + p.unit_bound_bytes)) {
      return Status::kCorrupt;
    }
    end = static_cast<int64_t>(word);
  }
  if (size != end) return size < end ? Status::kTruncated : Status::kCorrupt;
  *plan = p;
  return Status::kOk;
}

}  // namespace qvlmem
