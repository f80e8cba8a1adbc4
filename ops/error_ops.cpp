// SPDX-License-Identifier: Apache-2.0
#include "ops/error_ops.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "ops/base/check.h"
#include "ops/base/parallel.h"

namespace qvlmem::ops {

namespace {

// The values of y that are being measured.
class Window {
 public:
  Window(const ErrorPlan& plan, const DecodedPieces& y)
      : y_(y),
        element_bytes_(dtype_bytes(plan.dtype)),
        bytes_(new char[static_cast<size_t>((most_of_unit(plan) + y.most_elements) *
                                            element_bytes_)]) {}

  // Elements [begin, end), at most a unit. Those asked for next have to follow.
  const void* take(int64_t begin, int64_t end) {
    if (end_ == 0) {
      piece_ = y_.piece_of(begin);
      begin_ = end_ = y_.begin(piece_);
    }
    while (end_ < end) {
      drop(begin);
      y_.decode(piece_, at(end_));
      end_ = y_.end(piece_++);
    }
    return at(begin);
  }

 private:
  static int64_t most_of_unit(const ErrorPlan& plan) {
    return plan.rows_per_unit * std::min(plan.cols, kErrorUnit);
  }

  char* at(int64_t element) { return bytes_.get() + (element - begin_) * element_bytes_; }

  // Forgets what is before `begin`.
  void drop(int64_t begin) {
    begin = std::min(begin, end_);
    if (begin <= begin_) return;
    std::memmove(bytes_.get(), at(begin), static_cast<size_t>((end_ - begin) * element_bytes_));
    begin_ = begin;
  }

  const DecodedPieces& y_;
  int64_t element_bytes_;
  std::unique_ptr<char[]> bytes_;
  int64_t begin_ = 0, end_ = 0;  // what is in them
  int64_t piece_ = 0;            // the next
};

}  // namespace

ErrorPlan prepare_error(const at::Tensor& x) {
  const MatrixShape matrix = matrix_shape(x.sizes());
  ErrorPlan plan;
  check_status(
      "compress", "x",
      make_error_plan(matrix.rows, matrix.cols, kernel_dtype("compress", x.scalar_type()), &plan));
  return plan;
}

ErrorMeasure measure_error_cpu(const at::Tensor& x, const at::Tensor& y) {
  TORCH_INTERNAL_ASSERT(x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type());
  const ErrorPlan plan = prepare_error(x);
  const at::Tensor a = x.contiguous(), b = y.contiguous();
  std::vector<ErrorPartial> partials(plan.unit_count);
  parallel_units(plan.unit_count, 1, [&](int64_t begin, int64_t end) {
    qvlmem::measure_error_cpu(plan, a.const_data_ptr(), b.const_data_ptr(), begin, end,
                              &partials[begin]);
  });
  return merge_errors(plan, partials.data());
}

ErrorMeasure measure_error_of_pieces(const at::Tensor& x, const DecodedPieces& y) {
  const ErrorPlan plan = prepare_error(x);
  const at::Tensor dense = x.contiguous();
  const char* const values = static_cast<const char*>(dense.const_data_ptr());
  std::vector<ErrorPartial> partials(plan.unit_count);
  parallel_units(plan.unit_count, 1, [&](int64_t begin, int64_t end) {
    Window window(plan, y);
    for (int64_t u = begin; u < end; ++u) {
      const ErrorUnit unit = error_unit(plan, u);
      measure_error_unit_cpu(plan, u, values + unit.begin * dtype_bytes(plan.dtype),
                             window.take(unit.begin, unit.end()), &partials[u]);
    }
  });
  return merge_errors(plan, partials.data());
}

}  // namespace qvlmem::ops
