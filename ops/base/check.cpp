// SPDX-License-Identifier: Apache-2.0
#include "ops/base/check.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/nonzero.h>
#include <c10/core/ScalarType.h>
#include <torch/version.h>

#include <algorithm>
#include <sstream>

#include "kernels/base/checked.h"

namespace qvlmem::ops {
namespace {

struct DTypePair {
  DType kernel;
  at::ScalarType torch;
};

constexpr DTypePair kDTypes[] = {
    {DType::kFloat32, at::kFloat},
    {DType::kFloat16, at::kHalf},
    {DType::kBFloat16, at::kBFloat16},
    {DType::kFloat64, at::kDouble},
    {DType::kUInt8, at::kByte},
    {DType::kInt8, at::kChar},
    {DType::kInt16, at::kShort},
    {DType::kInt32, at::kInt},
    {DType::kInt64, at::kLong},
    {DType::kBool, at::kBool},
    {DType::kComplex32, at::kComplexHalf},
    {DType::kComplex64, at::kComplexFloat},
    {DType::kComplex128, at::kComplexDouble},
    {DType::kUInt16, at::kUInt16},
    {DType::kUInt32, at::kUInt32},
    {DType::kUInt64, at::kUInt64},
    {DType::kFloat8E4M3FN, at::kFloat8_e4m3fn},
    {DType::kFloat8E5M2, at::kFloat8_e5m2},
    {DType::kFloat8E4M3FNUZ, at::kFloat8_e4m3fnuz},
    {DType::kFloat8E5M2FNUZ, at::kFloat8_e5m2fnuz},
    {DType::kFloat8E8M0FNU, at::kFloat8_e8m0fnu},
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 8
    {DType::kFloat4E2M1FNX2, at::ScalarType::Float4_e2m1fn_x2},
#endif
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 15
    {DType::kBComplex32, at::ScalarType::BComplex32},
#endif
};
static_assert(sizeof(kDTypes) / sizeof(kDTypes[0]) <= kDTypeCount);

struct NonFinite {
  int64_t count = 0;
  int64_t first = -1;  // in x's order
};

// Adds what part of a tensor, from element `begin` on, holds. Looks at 2^20 values at a time, for
// what that takes is memory of several times their size, and x may fill the device's.
void find_non_finite(const at::Tensor& part, int64_t begin, NonFinite* found) {
  constexpr int64_t kPanel = int64_t{1} << 20;
  if (part.numel() > kPanel) {
    const int64_t rows = part.size(0), row = part.numel() / rows;
    const int64_t step = row < kPanel ? kPanel / row : 1;
    for (int64_t r = 0; r < rows; r += step) {
      const at::Tensor panel =
          row > kPanel ? part.select(0, r) : part.narrow(0, r, std::min(step, rows - r));
      find_non_finite(panel, begin + r * row, found);
    }
    return;
  }
  const at::Tensor bad = at::isfinite(part).logical_not().reshape(-1);
  const int64_t count = bad.sum().item<int64_t>();
  if (count > 0 && found->first < 0) found->first = begin + at::nonzero(bad)[0].item<int64_t>();
  found->count += count;
}

}  // namespace

DType kernel_dtype(const char* op, at::ScalarType dtype) {
  for (const DTypePair& pair : kDTypes) {
    if (pair.torch == dtype) return pair.kernel;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(false, "qvlmem::", op,
                              ": expected a dtype that frames have a number for, got ",
                              describe(dtype));
}

at::ScalarType torch_dtype(DType dtype) {
  for (const DTypePair& pair : kDTypes) {
    if (pair.kernel == dtype) return pair.torch;
  }
  TORCH_CHECK_VALUE(false, "qvlmem: this PyTorch has no dtype for number ",
                    static_cast<int>(dtype));
}

std::string describe(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kByte:
      return "uint8";
    case at::kChar:
      return "int8";
    case at::kShort:
      return "int16";
    case at::kInt:
      return "int32";
    case at::kLong:
      return "int64";
    case at::kBool:
      return "bool";
    case at::kComplexFloat:
      return "complex64";
    case at::kComplexDouble:
      return "complex128";
    default:
      return c10::toString(dtype);
  }
}

std::string describe(const at::Tensor& x) {
  if (!x.defined()) return "None";
  std::ostringstream text;
  text << describe(x.scalar_type());
  if (x.is_nested()) {
    text << " (nested)";
  } else {
    text << " with shape " << x.sym_sizes();
  }
  text << " on " << x.device();
  if (x.layout() != at::kStrided) text << " (" << x.layout() << ")";
  return text.str();
}

void check_dense(const char* op, const char* argument, const at::Tensor& x) {
  TORCH_CHECK_TYPE(x.defined(), "qvlmem::", op, ": expected ", argument,
                   " to be a tensor, got None");
  TORCH_CHECK_NOT_IMPLEMENTED(x.layout() == at::kStrided && !x.is_quantized() && !x.is_nested(),
                              "qvlmem::", op, ": expected ", argument,
                              " to be a dense tensor, got ", describe(x));
}

at::Tensor copy_of(const at::Tensor& x) {
  const at::Tensor copy = at::empty(x.sizes(), x.options());
  if (x.element_size() == 1) {
    copy.view(at::kByte).copy_(x.view(at::kByte));
  } else {
    copy.copy_(x);
  }
  return copy;
}

at::Tensor contiguous(const at::Tensor& x) { return x.is_contiguous() ? x : copy_of(x); }

void check_device(const char* op, const char* argument, const at::Tensor& x) {
#ifdef QVLMEM_WITH_CUDA
  constexpr bool kWithCuda = true;
#else
  constexpr bool kWithCuda = false;
#endif
  TORCH_CHECK_NOT_IMPLEMENTED(x.is_cpu() || (kWithCuda && x.is_cuda()), "qvlmem::", op,
                              ": expected ", argument, " on cpu", kWithCuda ? " or cuda" : "",
                              ", got ", describe(x),
                              x.is_cuda() ? ": this library was built without CUDA" : "");
}

void check_lossy_input(const char* op, const at::Tensor& x) {
  check_dense(op, "x", x);
  const at::ScalarType dtype = x.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
                   "qvlmem::", op, ": expected x to be float32, float16 or bfloat16, got ",
                   describe(x));
}

void check_dtype(const char* op, const char* argument, const at::Tensor& x,
                 at::ScalarType expected) {
  check_dense(op, argument, x);
  TORCH_CHECK_TYPE(x.scalar_type() == expected, "qvlmem::", op, ": expected ", argument, " to be ",
                   describe(expected), ", got ", describe(x));
}

void check_shape(const char* op, const char* argument, const at::Tensor& x,
                 at::IntArrayRef expected) {
  TORCH_CHECK_VALUE(x.sizes() == expected, "qvlmem::", op, ": expected ", argument,
                    " to have shape ", expected, ", got ", describe(x));
}

int64_t check_sizes(const char* op, at::IntArrayRef shape, int64_t element_bytes) {
  // A product with a zero in it is zero, whatever overflows beside it; PyTorch refuses those all
  // the same.
  int64_t numel = 1, bytes = 0;
  bool fits = true;
  for (const int64_t size : shape) {
    TORCH_CHECK_VALUE(size >= 0, "qvlmem::", op, ": expected shape to have no negative size, got ",
                      shape);
    fits = fits && checked_mul(numel, size, &numel);
  }
  fits = fits && checked_mul(numel, element_bytes, &bytes);
  TORCH_CHECK_VALUE(fits, "qvlmem::", op, ": expected a shape whose bytes fit in 63 bits, got ",
                    shape);
  return numel;
}

at::ScalarType output_dtype(const char* op, std::optional<at::ScalarType> dtype) {
  const at::ScalarType result = dtype.value_or(at::kFloat);
  TORCH_CHECK_TYPE(result == at::kFloat || result == at::kHalf || result == at::kBFloat16,
                   "qvlmem::", op, ": expected dtype to be float32, float16 or bfloat16, got ",
                   describe(result));
  return result;
}

void throw_non_finite(const char* op, const at::Tensor& x) {
  NonFinite found;
  find_non_finite(x, 0, &found);
  TORCH_INTERNAL_ASSERT(found.count > 0);
  const int64_t count = found.count;
  int64_t flat = found.first;
  std::vector<int64_t> index(x.dim());
  for (int64_t d = x.dim(); d-- > 0;) {
    index[d] = flat % x.size(d);
    flat /= x.size(d);
  }
  TORCH_CHECK_VALUE(false, "qvlmem::", op, ": expected x to be finite, got ", count,
                    count == 1 ? " value that is" : " values that are",
                    " NaN or infinite, the first at index ", at::IntArrayRef(index),
                    " (method 'lossless' or 'auto' keeps them)");
}

void throw_no_kernel(const c10::OperatorHandle& op, c10::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const std::string name = schema.name().substr(schema.name().rfind(':') + 1);
  const size_t first = stack->size() - schema.arguments().size();
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const c10::Argument& argument = schema.arguments()[i];
    if (argument.type()->kind() != c10::TypeKind::TensorType) continue;
    const c10::IValue& value = (*stack)[first + i];
    const at::Tensor x = value.isTensor() ? value.toTensor() : at::Tensor();
    check_dense(name.c_str(), argument.name().c_str(), x);
    TORCH_CHECK_NOT_IMPLEMENTED(!x.is_meta(), "qvlmem::", name, ": expected ", argument.name(),
                                " to have values, got ", describe(x),
                                " (`import qvlmem` brings the fake kernel)");
    check_device(name.c_str(), argument.name().c_str(), x);
  }
  TORCH_CHECK_NOT_IMPLEMENTED(false, "qvlmem::", name, ": no kernel takes these arguments");
}

void check_status(const char* op, const char* what, Status status) {
  TORCH_CHECK_VALUE(status == Status::kOk, "qvlmem::", op, ": ", what, ": ", status_text(status));
}

MatrixShape matrix_shape(at::IntArrayRef shape) {
  if (shape.empty()) return {1, 1};
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < shape.size(); ++d) rows *= shape[d];
  return {rows, shape.back()};
}

}  // namespace qvlmem::ops
