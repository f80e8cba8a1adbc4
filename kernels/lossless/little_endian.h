// SPDX-License-Identifier: Apache-2.0
// Little-endian words at any address.
#pragma once

#include <cstdint>

namespace qvlmem {

inline uint64_t read_le(const uint8_t* bytes, int count) {
  uint64_t value = 0;
  for (int i = 0; i < count; ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
  return value;
}

inline void write_le(uint64_t value, int count, uint8_t* bytes) {
  for (int i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
}

inline uint32_t read_le32(const uint8_t* bytes) { return static_cast<uint32_t>(read_le(bytes, 4)); }
inline uint64_t read_le64(const uint8_t* bytes) { return read_le(bytes, 8); }
inline void write_le32(uint32_t value, uint8_t* bytes) { write_le(value, 4, bytes); }
inline void write_le64(uint64_t value, uint8_t* bytes) { write_le(value, 8, bytes); }

}  // namespace qvlmem
