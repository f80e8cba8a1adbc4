// SPDX-License-Identifier: Apache-2.0
// Whole tensors through the CPU kernels of lossless, and values that every back end is tested on.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpp_tests/kernels/typed_bytes.h"
#include "kernels/lossless/lossless.h"

namespace qvlmem {

using Bytes = std::vector<uint8_t>;

// Every unit into memory of exactly its bound, in reverse, then put in line: shows that units are
// independent and that none writes beyond what it is given.
inline Bytes lossless_encode(const Bytes& x, int64_t count, DType dtype, int level,
                             bool stream = false) {
  LosslessPlan plan;
  EXPECT_EQ(make_lossless_plan(count, dtype, &plan), Status::kOk);
  std::vector<Bytes> units(plan.unit_count);
  for (int64_t u = plan.unit_count; u-- > 0;) {
    const std::unique_ptr<uint8_t[]> slot(new uint8_t[plan.unit_bound_bytes]);
    const int64_t size = lossless_encode_unit_cpu(plan, x.data(), u, level, stream, slot.get());
    EXPECT_LE(size, plan.unit_bound_bytes);
    units[u].assign(slot.get(), slot.get() + size);
  }
  Bytes bytes(plan.bound_bytes, 0xee);
  lossless_write_header(plan, bytes.data());
  int64_t end = plan.header_bytes;
  for (int64_t u = 0; u < plan.unit_count; ++u) {
    const int64_t begin = lossless_unit_begin(end);
    std::copy(units[u].begin(), units[u].end(), bytes.begin() + begin);
    end = begin + static_cast<int64_t>(units[u].size());
    lossless_write_unit_end(plan, u, end, bytes.data());
  }
  EXPECT_LE(end, plan.bound_bytes);
  bytes.resize(end);
  return bytes;
}

// kOk and exactly the tensor's bytes in *y, or the error. Memory of exact size on both sides.
inline Status lossless_decode(const uint8_t* bytes, size_t size, Bytes* y) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[size]);
  std::copy(bytes, bytes + size, copy.get());
  LosslessPlan plan;
  Status status = lossless_read_plan(copy.get(), static_cast<int64_t>(size), &plan);
  if (status != Status::kOk) return status;
  const int64_t total = plan.scalars * plan.scalar_bytes;
  if (total > int64_t{1} << 26) return Status::kOverflow;  // more than any of these tests encodes
  y->assign(total, 0xcc);
  for (int64_t u = plan.unit_count; u-- > 0;) {
    const Status one = lossless_decode_cpu(plan, copy.get(), u, u + 1, y->data());
    if (one != Status::kOk) status = one;
  }
  return status;
}

inline std::string lossless_name(DType dtype, int64_t count, int level) {
  return "dtype " + std::to_string(int(dtype)) + " count " + std::to_string(count) + " level " +
         std::to_string(level);
}

// Values as tensors have them: bell-shaped floats with every special value, integers near 0.
inline Bytes lossless_sample(DType dtype, int64_t count, uint32_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0.0, 0.02);
  Bytes x(static_cast<size_t>(count) * dtype_bytes(dtype) + 1);
  const auto fill = [&](auto zero, auto make) {
    for (size_t i = 0; i + sizeof(zero) < x.size(); i += sizeof(zero)) {
      const decltype(zero) value = make();
      std::memcpy(&x[i], &value, sizeof(value));
    }
  };
  const float special[] = {0.0f, -0.0f, 1e-41f, INFINITY, -INFINITY, NAN, kFloat32Max};
  const auto value = [&]() {
    const uint64_t pick = random() % 1024;  // rare, or no block of floats would be worth packing
    return pick < 7 ? special[pick] : static_cast<float>(normal(random));
  };
  switch (dtype) {
    case DType::kFloat32:
    case DType::kComplex64:
      fill(0.0f, value);
      break;
    case DType::kFloat64:
    case DType::kComplex128:
      fill(0.0, [&] { return static_cast<double>(value()) * 1.1; });
      break;
    case DType::kFloat16:
    case DType::kComplex32:
      fill(uint16_t{}, [&] { return to_half(value()).bits; });
      break;
    case DType::kBFloat16:
      fill(uint16_t{}, [&] { return to_bfloat16(value()).bits; });
      break;
    case DType::kBool:
      fill(uint8_t{}, [&] { return static_cast<uint8_t>(random() % 8 == 0); });
      break;
    default: {
      const int bytes = dtype_bytes(dtype);
      for (size_t i = 0; i + bytes < x.size(); i += bytes) {
        const int64_t v = static_cast<int64_t>(std::llround(normal(random) * 2000));
        std::memcpy(&x[i], &v, bytes);
      }
    }
  }
  return x;
}

constexpr int64_t kLosslessCounts[] = {0, 1, 2, 5, 31, 32, 33, 63, 65, 72, 129, 1023, 4304, 16385};

}  // namespace qvlmem
