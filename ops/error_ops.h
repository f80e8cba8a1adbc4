// SPDX-License-Identifier: Apache-2.0
// How far what came back is from what went in.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "kernels/error/error.h"

namespace qvlmem::ops {

// All three errors are 0 for an empty tensor. What counts as what: kernels/error/error.h.
// REQUIRES: x and y are of one shape, on one device and of one dtype: float32, float16, bfloat16 or
// float64.
ErrorMeasure measure_error_cpu(const at::Tensor& x, const at::Tensor& y);
// The same numbers, bit by bit. Waits for the stream.
ErrorMeasure measure_error_cuda(const at::Tensor& x, const at::Tensor& y);

// A tensor that is decoded as it is read: in pieces, one after another from the first element to
// the last. Functions are called by several threads at once.
struct DecodedPieces {
  int64_t most_elements;                       // of a piece
  std::function<int64_t(int64_t)> piece_of;    // that has an element
  std::function<int64_t(int64_t)> begin;       // the first element of a piece
  std::function<int64_t(int64_t)> end;         // one past its last
  std::function<void(int64_t, void*)> decode;  // a piece to where its first element is to be
};

// The same numbers as with y decoded first, for which no memory is taken but that of a piece and of
// what is measured at a time, some hundred KiB, for each thread.
ErrorMeasure measure_error_of_pieces(const at::Tensor& x, const DecodedPieces& y);

// What every back end begins with.
ErrorPlan prepare_error(const at::Tensor& x);

}  // namespace qvlmem::ops
