// SPDX-License-Identifier: Apache-2.0
// Buffers of float32, float16, bfloat16 or float64 elements for the tests of kernels.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/base/float_bits.h"

namespace qvlmem {

// `values` rounded to dtype, as bytes (one spare, so that the pointer is never null).
inline std::vector<uint8_t> as_dtype(const std::vector<float>& values, DType dtype) {
  std::vector<uint8_t> bytes(values.size() * dtype_bytes(dtype) + 1);
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kFloat32) {
      std::memcpy(&bytes[i * 4], &values[i], 4);
    } else {
      const uint16_t bits =
          dtype == DType::kFloat16 ? to_half(values[i]).bits : to_bfloat16(values[i]).bits;
      std::memcpy(&bytes[i * 2], &bits, 2);
    }
  }
  return bytes;
}

// Element i of such bytes.
inline float value_at(const std::vector<uint8_t>& bytes, DType dtype, size_t i) {
  if (dtype == DType::kFloat32) {
    float value;
    std::memcpy(&value, &bytes[i * 4], 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, &bytes[i * 2], 2);
  return dtype == DType::kFloat16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

// The same from and to double, for float64 too.
inline std::vector<uint8_t> bytes_of(const std::vector<double>& values, DType dtype) {
  if (dtype != DType::kFloat64) {
    return as_dtype(std::vector<float>(values.begin(), values.end()), dtype);
  }
  std::vector<uint8_t> bytes(values.size() * 8 + 1);
  for (size_t i = 0; i < values.size(); ++i) std::memcpy(&bytes[i * 8], &values[i], 8);
  return bytes;
}

inline double element_of(const std::vector<uint8_t>& bytes, DType dtype, size_t i) {
  if (dtype != DType::kFloat64) return value_at(bytes, dtype, i);
  double value;
  std::memcpy(&value, &bytes[i * 8], 8);
  return value;
}

}  // namespace qvlmem
