// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/range_finder.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>

#include <algorithm>
#include <cmath>

#include "kernels/base/checked.h"
#include "kernels/svd/svd.h"
#include "ops/base/parallel.h"
#include "ops/svd/fixed_order.h"

namespace qvlmem::ops {
namespace {

constexpr int64_t kSignsGrain = int64_t{1} << 15;  // below which waking a thread costs more

// Of a block's directions those below 1e-5 of the largest one's length are dropped: made unit
// vectors, they would be mostly rounding.
constexpr double kDropBeside = 1e-10;
// A unit vector that keeps less than half its length beside the basis was mostly rounding.
constexpr double kDropBelow = 0.25;

// Orthonormal rows that span what the rows of y span, without directions of an energy up to
// drop_below, or to drop_beside of the largest one's: y's principal directions, each divided by its
// length. Rounding leaves them orthogonal to eps * (largest length / smallest), so a second call
// makes them so to eps.
at::Tensor whiten(const at::Tensor& y, double drop_beside, double drop_below) {
  const Eigen eigen = eigen_descending(gram(y));
  const double least = std::max(eigen.values.front() * drop_beside, drop_below);
  const int64_t count = std::count_if(eigen.values.begin(), eigen.values.end(),
                                      [least](double value) { return value > least; });
  at::Tensor map = eigen.vectors.narrow(0, 0, count).contiguous();
  double* element = map.mutable_data_ptr<double>();
  for (int64_t i = 0; i < count; ++i) {
    const double scale = 1.0 / std::sqrt(eigen.values[i]);
    for (int64_t j = 0; j < map.size(1); ++j) *element++ *= scale;
  }
  return product(map.to(y.scalar_type()), y);
}

}  // namespace

RangeFinder::RangeFinder(at::Tensor a, double energy, uint64_t seed)
    : a_(std::move(a)),
      energy_(energy),
      seed_(seed),
      basis_(at::empty({0, a_.size(1)}, a_.options())),
      image_(at::empty({0, a_.size(0)}, a_.options())) {}

at::Tensor RangeFinder::random_rows(int64_t rows) {
  const int64_t cols = a_.size(1);
  at::Tensor signs = at::empty({rows, cols}, a_.options().dtype(at::kFloat));
  float* const first = signs.mutable_data_ptr<float>();
  parallel_units(rows, ceil_div(kSignsGrain, std::max<int64_t>(cols, 1)),
                 [&](int64_t begin, int64_t end) {
                   svd_random_signs(seed_, stream_, begin * cols, end * cols, first + begin * cols);
                 });
  ++stream_;
  return signs.to(a_.scalar_type());
}

void RangeFinder::project_out(at::Tensor& rows) const {
  if (size() > 0) multiply(rows, product(rows, basis_.t()), basis_, -1.0, 1.0);
}

void RangeFinder::append(at::Tensor rows) {
  for (const bool first : {true, false}) {
    if (rows.size(0) == 0) return;
    project_out(rows);
    rows = first ? whiten(rows, kDropBeside, 0) : whiten(rows, 0, kDropBelow);
  }
  const at::Tensor image = product(rows, a_.t());
  captured_ += energy(image);
  basis_ = at::cat({basis_, rows});
  image_ = at::cat({image_, image});
}

void RangeFinder::grow(int64_t columns) {
  at::Tensor samples = random_rows(columns);
  project_out(samples);
  const at::Tensor range = whiten(product(samples, a_.t()), kDropBeside, 0);
  append(product(range, a_));
}

void RangeFinder::refine() {
  const at::Tensor range = whiten(image_, kDropBeside, 0);
  basis_ = basis_.narrow(0, 0, 0);
  image_ = image_.narrow(0, 0, 0);
  captured_ = 0;
  append(product(range, a_));
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
  return product(samples, a_.t());
}

}  // namespace qvlmem::ops
