// SPDX-License-Identifier: Apache-2.0
#include "ops/error_ops.h"

#include <vector>

#include "ops/base/check.h"
#include "ops/base/parallel.h"

namespace qvlmem::ops {

ErrorPlan prepare_error(const at::Tensor& x, const at::Tensor& y) {
  TORCH_INTERNAL_ASSERT(x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type());
  const MatrixShape matrix = matrix_shape(x.sizes());
  ErrorPlan plan;
  check_status(
      "compress", "x",
      make_error_plan(matrix.rows, matrix.cols, kernel_dtype("compress", x.scalar_type()), &plan));
  return plan;
}

ErrorMeasure measure_error_cpu(const at::Tensor& x, const at::Tensor& y) {
  const ErrorPlan plan = prepare_error(x, y);
  const at::Tensor a = x.contiguous(), b = y.contiguous();
  std::vector<ErrorPartial> partials(plan.unit_count);
  parallel_units(plan.unit_count, 1, [&](int64_t begin, int64_t end) {
    qvlmem::measure_error_cpu(plan, a.const_data_ptr(), b.const_data_ptr(), begin, end,
                              &partials[begin]);
  });
  return merge_errors(plan, partials.data());
}

}  // namespace qvlmem::ops
