// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/range_finder.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

namespace qvlmem::ops {
namespace {

// Of a block's directions those below 1e-5 of the largest one's length are dropped: made unit
// vectors, they would be mostly rounding.
constexpr double kDropBeside = 1e-10;
// A unit vector that keeps less than half its length beside the basis was mostly rounding.
constexpr double kDropBelow = 0.25;

// The first `used` rows of memory in more of it. Frees the old before it returns.
void enlarge(at::Tensor& memory, int64_t used, int64_t rows) {
  at::Tensor larger = at::empty({rows, memory.size(1)}, memory.options());
  larger.narrow(0, 0, used).copy_(memory.narrow(0, 0, used));
  memory = std::move(larger);
}

}  // namespace

RangeFinder::RangeFinder(SvdDevice& device, SvdMatrix& matrix, uint64_t seed)
    : device_(device),
      matrix_(matrix),
      seed_(seed),
      basis_(at::empty({0, matrix.cols()}, matrix.options())),
      image_(at::empty({0, matrix.rows()}, matrix.options())) {}

// Orthonormal rows, in the first rows of out (which may be y), that span what the rows of y span,
// without directions of an energy up to drop_below, or to drop_beside of the largest one's: y's
// principal directions, each divided by its length. Rounding leaves them orthogonal to eps *
// (largest length / smallest), so a second call makes them so to eps. Where the number of those
// that are left must be waited for, what is dropped becomes rows of zeros.
RangeFinder::Block RangeFinder::whiten(at::Tensor& out, const at::Tensor& y, double drop_beside,
                                       double drop_below) {
  const Eigen eigen = device_.eigen_descending(device_.gram(y));
  const at::Tensor least = eigen.values[0].mul(drop_beside).clamp_min(drop_below);
  const at::Tensor is_kept = eigen.values.gt(least), count = is_kept.sum(at::kDouble);
  const at::Tensor scale = at::where(is_kept, eigen.values.rsqrt(), 0.0);
  const int64_t rows =
      device_.reads_at_once() ? static_cast<int64_t>(device_.read({count})[0]) : y.size(0);
  const at::Tensor map =
      eigen.leading(rows).mul_(scale.narrow(0, 0, rows).unsqueeze(1)).to(y.scalar_type());
  out = out.narrow(0, 0, rows);
  device_.multiply_in_panels(out, map, y);
  return {rows, is_kept.narrow(0, 0, rows), count, {}};
}

at::Tensor RangeFinder::random_rows(int64_t rows) {
  return device_.random_signs(seed_, stream_++, rows, matrix_.cols()).to(matrix_.dtype());
}

at::Tensor RangeFinder::rows_of(const at::Tensor& memory) const {
  return memory.narrow(0, 0, size_ + (added_ ? added_->rows : 0));
}

void RangeFinder::project_out(at::Tensor& rows) const {
  const at::Tensor basis = rows_of(basis_);
  if (basis.size(0) > 0) {
    device_.multiply(rows, device_.product(rows, basis.t()), basis, -1.0, 1.0);
  }
}

void RangeFinder::reserve(int64_t rows) {
  if (basis_.size(0) >= rows) return;
  const int64_t most = std::min(matrix_.rows(), matrix_.cols());
  const int64_t kept = device_.reserves_freely() ? std::max(rows, most) : rows;
  enlarge(basis_, size_, kept);
  enlarge(image_, size_, kept);
}

void RangeFinder::forget() {
  added_.reset();
  spectrum_.reset();
  size_ = 0;
  captured_ = 0;
}

// Adds what `rows` span beyond the basis. They may be the memory behind it.
void RangeFinder::append(const at::Tensor& rows) {
  if (rows.size(0) == 0) return;
  reserve(size_ + rows.size(0));
  at::Tensor added = basis_.narrow(0, size_, rows.size(0));
  if (size_ > 0) {
    if (!rows.is_alias_of(added)) added.copy_(rows);
    project_out(added);
  }
  whiten(added, size_ > 0 ? at::Tensor(added) : rows, kDropBeside, 0);
  if (added.size(0) == 0) return;
  project_out(added);
  Block block = whiten(added, at::Tensor(added), 0, kDropBelow);
  at::Tensor image = image_.narrow(0, size_, block.rows);
  matrix_.multiply_transposed(image, added);
  block.energy = device_.energy(image);
  added_ = std::move(block);
  if (device_.reads_at_once()) size();
}

void RangeFinder::grow(int64_t columns) {
  const int64_t last_size = size();
  spectrum_.reset();
  at::Tensor samples = random_rows(columns);
  project_out(samples);
  reserve(last_size + columns);
  at::Tensor range = image_.narrow(0, last_size, columns);
  matrix_.multiply_transposed(range, samples);
  samples.reset();
  const int64_t rows = whiten(range, at::Tensor(range), kDropBeside, 0).rows;
  at::Tensor added = basis_.narrow(0, last_size, rows);
  matrix_.multiply(added, range);
  append(added);
}

void RangeFinder::refine() {
  at::Tensor range = rows_of(image_);
  forget();
  if (range.size(0) == 0) return;
  const int64_t rows = whiten(range, at::Tensor(range), kDropBeside, 0).rows;
  at::Tensor added = basis_.narrow(0, 0, rows);
  matrix_.multiply(added, range);
  append(added);
}

void RangeFinder::pad(int64_t size) {
  while (this->size() < size) {
    spectrum_.reset();
    append(random_rows(size - this->size()));
  }
}

void RangeFinder::span() {
  const int64_t m = matrix_.rows(), n = matrix_.cols();
  forget();
  if (n <= m) {
    is_identity_ = true;
    basis_.reset();
    image_ = matrix_.whole().t();
    size_ = n;
    captured_ = std::numeric_limits<double>::infinity();
    return;
  }
  const auto append_all = [&] {
    reserve(size_ + m);
    at::Tensor rows = basis_.narrow(0, size_, m);
    matrix_.copy_to(rows);
    append(rows);
  };
  append_all();
  expect_spectrum();
  // What was too small beside the largest is not beside what is left.
  for (int64_t last = 0; last < size() && size() < m && missing_energy() > 2 * rounding();) {
    last = size();
    spectrum_.reset();
    append_all();
  }
}

// A block's dropped directions would have eigenvalues of 0, among the smallest of the others, whose
// eigenvectors would mix with them: they are given one so far below that they stand apart, last.
void RangeFinder::expect_spectrum() {
  if (device_.reads_at_once() || spectrum_) return;
  at::Tensor gram = device_.gram(rows_of(image_));
  if (added_) {
    at::Tensor diagonal = gram.diagonal();
    const at::Tensor below = at::where(added_->is_kept, 0.0, diagonal.sum());
    diagonal.narrow(0, size_, added_->rows).sub_(below);
  }
  spectrum_ = Spectrum{device_.eigen_descending(gram), {}};
}

std::vector<double> RangeFinder::read(const at::Tensor& also) {
  const bool reads_scan = !matrix_.is_known();
  const bool reads_spectrum = spectrum_ && spectrum_->values.empty();
  std::vector<at::Tensor> wanted{also};
  if (reads_scan) wanted.push_back(matrix_.scan());
  if (added_) wanted.insert(wanted.end(), {added_->count, added_->energy});
  if (reads_spectrum) wanted.push_back(spectrum_->eigen.values);
  const std::vector<double> found = device_.read(wanted);
  const double* next = found.data() + also.numel();
  if (reads_scan) {
    matrix_.learn(next);
    next += 2;
  }
  if (added_) {
    const int64_t count = static_cast<int64_t>(next[0]);
    if (count > 0) captured_ += next[1];
    size_ += count;
    added_.reset();
    next += 2;
  }
  if (reads_spectrum) spectrum_->values.assign(next, next + size_);
  return {found.data(), found.data() + also.numel()};
}

void RangeFinder::wait() { read(at::empty({0}, matrix_.scan().options())); }

int64_t RangeFinder::size() {
  if (added_) wait();
  return size_;
}

double RangeFinder::energy() {
  if (added_ || !matrix_.is_known()) wait();
  return matrix_.energy();
}

double RangeFinder::rounding() {
  return energy() * (matrix_.dtype() == at::kFloat ? 0x1p-27 : 0x1p-56);
}

double RangeFinder::missing_energy() {
  const double total = energy();
  return std::max(total - captured_, 0.0) + rounding();
}

const Spectrum& RangeFinder::spectrum() {
  if (!spectrum_) {
    size();
    spectrum_ = Spectrum{device_.eigen_descending(device_.gram(rows_of(image_))), {}};
  }
  if (added_ || spectrum_->values.empty()) wait();
  return *spectrum_;
}

at::Tensor RangeFinder::image() {
  size();
  return rows_of(image_);
}

at::Tensor RangeFinder::basis() {
  if (is_identity_) return at::eye(size_, matrix_.options());
  size();
  return rows_of(basis_);
}

void RangeFinder::multiply_basis(at::Tensor& out, const at::Tensor& map) {
  if (is_identity_) {
    out.copy_(map);
  } else {
    device_.multiply_in_panels(out, map, basis());
  }
}

at::Tensor RangeFinder::sample_missing(int64_t rows) {
  at::Tensor samples = random_rows(rows);
  project_out(samples);
  at::Tensor image = at::empty({rows, matrix_.rows()}, matrix_.options());
  matrix_.multiply_transposed(image, samples);
  return image;
}

}  // namespace qvlmem::ops
