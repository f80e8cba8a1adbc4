// SPDX-License-Identifier: Apache-2.0
// svd on the CPU: dense linear algebra whose every sum is taken in one order, whatever the number
// of threads. BLAS and LAPACK split sums among threads as they see fit, so here each call of theirs
// runs on one thread, on a tile that depends on the shapes alone, and the tiles run in parallel.
//
// BLAS is the one that PyTorch's CPU library carries, called directly.
#pragma once

#include <ATen/Parallel.h>

#include "kernels/svd/svd.h"
#include "ops/svd/svd_device.h"

namespace qvlmem::ops {

// Of x, contiguous; pieces are summed in order, whichever thread scans them.
SvdScan svd_scan_in_order(const at::Tensor& x);

class FixedOrder final : public SvdDevice {
 public:
  at::Tensor gram(const at::Tensor& y) override;
  Eigen eigen_descending(at::Tensor symmetric) override;
  at::Tensor energy(const at::Tensor& y) override;
  at::Tensor random_signs(uint64_t seed, uint16_t stream, int64_t rows, int64_t cols) override;
  at::Tensor scan(const at::Tensor& x) override;
  std::vector<double> read(const std::vector<at::Tensor>& values) override;
  bool reads_at_once() const override { return true; }
  bool reserves_freely() const override { return true; }
  int64_t panel_bytes() const override { return int64_t{1} << 21; }
  int64_t tiles_at_a_time() const override { return at::get_num_threads(); }

 private:
  void gemm(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double alpha,
            double beta) override;
};

}  // namespace qvlmem::ops
