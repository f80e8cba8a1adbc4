// SPDX-License-Identifier: Apache-2.0
// Which elements of x the profile looks at: one text for host and device.
#pragma once

#include "kernels/base/macros.h"
#include "kernels/base/sample.h"
#include "kernels/profile/profile.h"

namespace qvlmem {

// ---- The sample: runs of plan.run_cols columns, plan.runs_per_row of each sampled row ----

// Sampled rows, of which plan.rows_per_group in turn lie side by side in x.
QVLMEM_HD inline int64_t profile_sampled_rows(const ProfilePlan& plan) {
  return plan.row_groups * plan.rows_per_group;
}

QVLMEM_HD inline int64_t profile_sampled_count(const ProfilePlan& plan) {
  return profile_sampled_rows(plan) * plan.runs_per_row * plan.run_cols;
}

// The row of x at which a group of sampled rows begins.
QVLMEM_HD inline int64_t profile_group_begin(const ProfilePlan& plan, int64_t group) {
  return sample_begin(plan.rows, plan.row_groups, group, plan.rows_per_group, group);
}

// The column at which a run of a sampled row begins.
QVLMEM_HD inline int64_t profile_run_begin(const ProfilePlan& plan, int64_t sampled_row,
                                           int64_t run) {
  if (plan.run_cols == plan.cols) return 0;
  return sample_begin(plan.cols, plan.runs_per_row, run, plan.run_cols,
                      sampled_row * plan.runs_per_row + run);
}

// ---- The block whose spectrum is taken: the same columns of each of its rows ----

constexpr int64_t kProfileBlockRun = 16;  // columns of the block that lie side by side

QVLMEM_HD inline int64_t profile_block_side(int64_t size) {
  return size < kProfileBlock ? size : kProfileBlock;
}

QVLMEM_HD inline int64_t profile_block_row(const ProfilePlan& plan, int64_t r) {
  return sample_begin(plan.rows, profile_block_side(plan.rows), r, 1, r);
}

QVLMEM_HD inline int64_t profile_block_col(const ProfilePlan& plan, int64_t c) {
  const int64_t cols = profile_block_side(plan.cols);
  const int64_t run = plan.cols <= kProfileBlock ? cols : kProfileBlockRun;
  return sample_begin(plan.cols, cols / run, c / run, run, c / run) + c % run;
}

// ---- Gathered ----

// The element of x that is gathered as element i: the sample's runs, then the block, row by row.
QVLMEM_HD inline int64_t profile_source(const ProfilePlan& plan, int i) {
  const int run_cols = static_cast<int>(plan.run_cols);
  const int runs_per_row = static_cast<int>(plan.runs_per_row);
  const int rows_per_group = static_cast<int>(plan.rows_per_group);
  const int sampled = static_cast<int>(profile_sampled_count(plan));
  if (i < sampled) {
    const int run = i / run_cols, row = run / runs_per_row, group = row / rows_per_group;
    return (profile_group_begin(plan, group) + row % rows_per_group) * plan.cols +
           profile_run_begin(plan, row, run % runs_per_row) + i % run_cols;
  }
  const int at = i - sampled, cols = static_cast<int>(profile_block_side(plan.cols));
  return profile_block_row(plan, at / cols) * plan.cols + profile_block_col(plan, at % cols);
}

}  // namespace qvlmem
