// SPDX-License-Identifier: Apache-2.0
// Memory for a result whose size shows only when it is there.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qvlmem::ops {

// Address space for as many bytes as a result may take, aligned as PyTorch aligns tensors. What is
// never written to takes no memory, and a tensor made of the first bytes owns those alone: nothing
// is copied.
class ReservedBytes {
 public:
  // Raises as PyTorch does where there is no room.
  explicit ReservedBytes(int64_t bytes);
  ~ReservedBytes();
  ReservedBytes(const ReservedBytes&) = delete;
  ReservedBytes& operator=(const ReservedBytes&) = delete;

  uint8_t* data() { return data_; }

  // Says that bytes up to `end`, or to the last, are likely to be written, of which the whole huge
  // pages that were not told of before are asked for as such (empty_output).
  void expect(int64_t end);

  // The first `count` elements as a flat tensor on the CPU; this object holds nothing after.
  at::Tensor take(int64_t count, at::ScalarType dtype = at::kByte);

 private:
  uint8_t* data_;
  int64_t bytes_;
  int64_t expected_ = 0;
};

// Where the last of `count` parts will end at least, as far as one can tell from where the first
// begins and `done` of them end: the others may be an eighth shorter. What is expected and not
// written may take the rest of one huge page.
inline int64_t expected_end(int64_t begin, int64_t end, int64_t done, int64_t count) {
  return done == 0 ? begin : end + (end - begin) / done * (count - done) / 8 * 7;
}

}  // namespace qvlmem::ops
