// SPDX-License-Identifier: Apache-2.0
// What every op needs: dtypes across the border to the kernels, and errors in one form:
// "qvlmem::OP: expected ARGUMENT to be EXPECTED, got GOT".
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string>

#include "kernels/base/dtype.h"
#include "kernels/base/status.h"

namespace qvlmem::ops {

// The kernels' name of a dtype; NotImplementedError for one that they do not know (quantized,
// bits).
DType kernel_dtype(const char* op, at::ScalarType dtype);
at::ScalarType torch_dtype(DType dtype);

// "int64 with shape [3, 5] on cpu": what stands behind "got".
std::string describe(const at::Tensor& x);
std::string describe(at::ScalarType dtype);  // as Python writes it, without "torch."

// TypeError unless x is dense, strided and one of float32, float16, bfloat16.
void check_lossy_input(const char* op, const at::Tensor& x);
// TypeError for None; NotImplementedError unless x is a dense strided tensor (no sparse or
// quantized one).
void check_dense(const char* op, const char* argument, const at::Tensor& x);
// x's values in a contiguous tensor of its own, and in one that may be x. PyTorch has no strided
// copy of every dtype of one byte (float4_e2m1fn_x2): they are copied as bytes.
at::Tensor copy_of(const at::Tensor& x);
at::Tensor contiguous(const at::Tensor& x);
// NotImplementedError unless the library holds kernels for x's device.
void check_device(const char* op, const char* argument, const at::Tensor& x);
// TypeError unless x has this dtype; ValueError unless it has this shape.
void check_dtype(const char* op, const char* argument, const at::Tensor& x,
                 at::ScalarType expected);
void check_shape(const char* op, const char* argument, const at::Tensor& x,
                 at::IntArrayRef expected);
// ValueError unless no size is negative and the element count, times `element_bytes`, fits in 63
// bits. Returns the element count.
int64_t check_sizes(const char* op, at::IntArrayRef shape, int64_t element_bytes);

// The dtype that a decoder is to return: float32 where the caller named none. TypeError where it is
// not one of float32, float16, bfloat16.
at::ScalarType output_dtype(const char* op, std::optional<at::ScalarType> dtype);

// Raises ValueError that says how many values are NaN or infinite, and where the first is.
// REQUIRES: there is at least one.
[[noreturn]] void throw_non_finite(const char* op, const at::Tensor& x);

// Raises what is wrong with the first tensor among the arguments on the stack that no kernel takes:
// None, not dense, on a device that the library was not built for. For ops that the dispatcher
// could bring to no back end.
[[noreturn]] void throw_no_kernel(const c10::OperatorHandle& op, c10::Stack* stack);

// Raises for a status that is not kOk. `what`: the argument that the kernel refused.
void check_status(const char* op, const char* what, Status status);

// x as a matrix: all but the last dimension, the last. A 0-d tensor is [1, 1].
struct MatrixShape {
  int64_t rows, cols;
};
MatrixShape matrix_shape(at::IntArrayRef shape);

}  // namespace qvlmem::ops
