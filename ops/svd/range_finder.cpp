// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/range_finder.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace qvlmem::ops {
namespace {

// Of a block's directions those below 1e-5 of the largest one's length are dropped: made unit
// vectors, they would be mostly rounding.
constexpr double kDropBeside = 1e-10;
// A unit vector that keeps less than half its length beside the basis was mostly rounding.
constexpr double kDropBelow = 0.25;

}  // namespace

RangeFinder::RangeFinder(SvdDevice& device, at::Tensor a, double energy, uint64_t seed)
    : device_(device),
      a_(std::move(a)),
      energy_(energy),
      seed_(seed),
      basis_(at::empty({0, a_.size(1)}, a_.options())),
      image_(at::empty({0, a_.size(0)}, a_.options())) {}

// Orthonormal rows that span what the rows of y span, without directions of an energy up to
// drop_below, or to drop_beside of the largest one's: y's principal directions, each divided by its
// length. Rounding leaves them orthogonal to eps * (largest length / smallest), so a second call
// makes them so to eps. Where the number of those that are left must be waited for, what is dropped
// becomes rows of zeros.
RangeFinder::Whitened RangeFinder::whiten(const at::Tensor& y, double drop_beside,
                                          double drop_below) {
  const Eigen eigen = device_.eigen_descending(device_.gram(y));
  const at::Tensor least = eigen.values[0].mul(drop_beside).clamp_min(drop_below);
  const at::Tensor is_kept = eigen.values.gt(least), count = is_kept.sum(at::kDouble);
  const at::Tensor scale = at::where(is_kept, eigen.values.rsqrt(), 0.0);
  at::Tensor map = eigen.vectors.mul(scale.unsqueeze(1)).to(y.scalar_type());
  if (device_.reads_at_once()) {
    map = map.narrow(0, 0, static_cast<int64_t>(device_.read(count)[0]));
  }
  return {device_.product(map, y), count};
}

at::Tensor RangeFinder::random_rows(int64_t rows) {
  return device_.random_signs(seed_, stream_++, rows, a_.size(1)).to(a_.scalar_type());
}

void RangeFinder::project_out(at::Tensor& rows) const {
  if (size() > 0) {
    device_.multiply(rows, device_.product(rows, basis_.t()), basis_, -1.0, 1.0);
  }
}

void RangeFinder::append(at::Tensor rows) {
  if (rows.size(0) == 0) return;
  project_out(rows);
  rows = whiten(rows, kDropBeside, 0).rows;
  if (rows.size(0) == 0) return;
  project_out(rows);
  const Whitened added = whiten(rows, 0, kDropBelow);
  const at::Tensor image = device_.product(added.rows, a_.t());
  const std::vector<double> found = device_.read(at::stack({added.count, device_.energy(image)}));
  const int64_t count = static_cast<int64_t>(found[0]);
  if (count == 0) return;
  captured_ += found[1];
  basis_ = at::cat({basis_, added.rows.narrow(0, 0, count)});
  image_ = at::cat({image_, image.narrow(0, 0, count)});
}

void RangeFinder::grow(int64_t columns) {
  at::Tensor samples = random_rows(columns);
  project_out(samples);
  const Whitened range = whiten(device_.product(samples, a_.t()), kDropBeside, 0);
  append(device_.product(range.rows, a_));
}

void RangeFinder::refine() {
  if (size() == 0) return;
  const Whitened range = whiten(image_, kDropBeside, 0);
  basis_ = basis_.narrow(0, 0, 0);
  image_ = image_.narrow(0, 0, 0);
  captured_ = 0;
  append(device_.product(range.rows, a_));
}

void RangeFinder::pad(int64_t size) {
  while (this->size() < size) append(random_rows(size - this->size()));
}

void RangeFinder::span() {
  const int64_t m = a_.size(0), n = a_.size(1);
  basis_ = basis_.narrow(0, 0, 0);
  image_ = image_.narrow(0, 0, 0);
  captured_ = 0;
  if (n <= m) {
    basis_ = at::eye(n, a_.options());
    image_ = a_.t().contiguous();
    captured_ = energy_;
    return;
  }
  append(a_);
  // What was too small beside the largest is not beside what is left.
  for (int64_t last = 0; last < size() && size() < m && missing_energy() > 2 * rounding();) {
    last = size();
    append(a_.clone());
  }
}

double RangeFinder::rounding() const {
  return energy_ * (a_.scalar_type() == at::kFloat ? 0x1p-27 : 0x1p-56);
}

double RangeFinder::missing_energy() const {
  return std::max(energy_ - captured_, 0.0) + rounding();
}

at::Tensor RangeFinder::sample_missing(int64_t rows) {
  at::Tensor samples = random_rows(rows);
  project_out(samples);
  return device_.product(samples, a_.t());
}

}  // namespace qvlmem::ops
