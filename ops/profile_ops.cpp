// SPDX-License-Identifier: Apache-2.0
#include "ops/profile_ops.h"

#include <ATen/ops/empty.h>
#include <qvlmem/qvlmem.h>

#include <vector>

#include "ops/backend.h"
#include "ops/base/check.h"

namespace qvlmem {
namespace {

// In ProfileField's order.
constexpr const char* kFieldNames[kProfileFields] = {
    "numel",         "sparsity",          "mean",         "variance",    "absmax",
    "outlier_ratio", "row_absmax_spread", "entropy_bits", "stable_rank", "low_rank_energy",
};

}  // namespace

namespace ops {

ProfilePlan prepare_profile(const at::Tensor& x) {
  check_lossy_input("profile_values", x);
  const MatrixShape matrix = matrix_shape(x.sizes());
  ProfilePlan plan;
  check_status("profile_values", "x",
               make_profile_plan(matrix.rows, matrix.cols,
                                 kernel_dtype("profile_values", x.scalar_type()), &plan));
  return plan;
}

at::Tensor profile_values_cpu(const at::Tensor& x) {
  const ProfilePlan plan = prepare_profile(x);
  at::Tensor fields = at::empty({kProfileFields}, x.options().dtype(at::kDouble));
  std::vector<float> workspace(plan.workspace_bytes / sizeof(float));
  const at::Tensor values = x.contiguous();
  profile_cpu(plan, values.const_data_ptr(), workspace.data(), fields.mutable_data_ptr<double>());
  return fields;
}

at::Tensor profile_values_meta(const at::Tensor& x) {
  check_lossy_input("profile_values", x);
  return at::empty({kProfileFields}, x.options().dtype(at::kDouble));
}

}  // namespace ops

c10::Dict<std::string, double> profile(const at::Tensor& x) {
  ops::check_lossy_input("profile", x);
  TORCH_CHECK_NOT_IMPLEMENTED(!x.is_meta(), "qvlmem::profile: expected x to have values, got ",
                              ops::describe(x));
  const at::Tensor values = profile_values(x.detach());
  const at::Tensor fields = backend_of("profile", "x", values).to_host("profile", values);
  c10::Dict<std::string, double> named;
  for (int k = 0; k < kProfileFields; ++k) {
    named.insert(kFieldNames[k], fields.const_data_ptr<double>()[k]);
  }
  return named;
}

}  // namespace qvlmem
