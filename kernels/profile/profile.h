// SPDX-License-Identifier: Apache-2.0
// Ten numbers that tell a selector how a tensor would compress, from a fixed sample of it.
//
// x is a matrix [rows, cols], dense, cols the last dimension. Up to 64 KiB the sample is all of x.
// Beyond, it is up to 16384 values: of up to 128 rows, runs of 64 columns; of short rows, whole
// rows, several at a time. The spectrum is that of a block of up to 32 x 32. Positions are a
// function of the shape alone, sums are float64 in a fixed order: the same x gives the same
// numbers, bit by bit, whatever the ISA.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/base/status.h"

namespace qvlmem {

// All but kNumel are of the sample's finite values, and 0 where undefined.
enum ProfileField : int {
  kProfileNumel = 0,
  kProfileSparsity = 1,         // share of zeros
  kProfileMean = 2,             //
  kProfileVariance = 3,         // mean of (x - mean)^2
  kProfileAbsmax = 4,           //
  kProfileOutlierRatio = 5,     // share of |x - mean| > 6 standard deviations
  kProfileRowAbsmaxSpread = 6,  // largest of the rows' absmax / their median (of an even number of
                                // rows the lower middle one)
  kProfileEntropyBits = 7,      // Shannon entropy of the dtype's exponent field
  kProfileStableRank = 8,       // of the block: sum of squared singular values / largest squared
  kProfileLowRankEnergy = 9,    // of the block: share of the leading ceil(rank / 8) of the squares
};
constexpr int kProfileFields = 10;

constexpr int64_t kProfileBlock = 32;  // rows and columns of the block, at most

struct ProfilePlan {
  int64_t rows = 0;
  int64_t cols = 0;
  DType dtype = DType::kFloat32;  // float32, float16 or bfloat16
  int64_t row_groups = 0;  // sampled rows: so many groups, spread over x, of so many rows in turn
  int64_t rows_per_group = 0;
  int64_t runs_per_row = 0;  // sampled columns of each: so many runs of so many columns
  int64_t run_cols = 0;
  size_t workspace_bytes = 0;
};

// kInvalidArgument for another dtype or a negative size, kOverflow where the bytes exceed 63 bits.
Status make_profile_plan(int64_t rows, int64_t cols, DType dtype, ProfilePlan* plan) noexcept;

// Elements that a profile looks at: those of the sample's runs, then the block, row by row. At most
// 33792. 0 for an empty x.
int64_t profile_gathered_count(const ProfilePlan& plan) noexcept;

// fields[kProfileFields]. workspace: plan.workspace_bytes (at most 256 KiB), aligned to 4.
void profile_cpu(const ProfilePlan& plan, const void* x, void* workspace, double* fields) noexcept;

}  // namespace qvlmem
