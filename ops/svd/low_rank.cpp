// SPDX-License-Identifier: Apache-2.0
#include "ops/svd/low_rank.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "kernels/base/float_bits.h"
#include "kernels/svd/svd.h"
#include "ops/base/check.h"
#include "ops/base/output.h"
#include "ops/svd/range_finder.h"

namespace qvlmem::ops {
namespace {

constexpr int64_t kTiny = 64;  // min(m, n) up to which the whole row space is the cheapest basis
constexpr int64_t kFirstBlock = 32;
constexpr double kSmallestBlock = 16;
constexpr double kRoundingEnergy = 0x1p-44;
constexpr double kFloat32Energy = 5e-7;  // the least missing energy that float32 can tell
// The sum of fourth powers is a mean over 496 pairs of samples: 6% of spread, more where a few
// directions dominate.
constexpr double kSamplingMargin = 1.25;

double missing_share(double energy) { return std::max(1.0 - energy, kRoundingEnergy); }

// What the spectrum says of the rank: one that is enough by it, and an estimate of the least that
// any basis needs. By Ky Fan no rank keeps more of A than as many of these values and all that is
// missing; of the missing, at least half (measured: 0.6 to 0.8) lies beyond the directions found,
// where no basis of this size could have it.
struct RankEstimate {
  int64_t rank, least;
  double tight_missing;  // what may be missing for a rank that is tight: twice what 5% more add

  RankEstimate(RangeFinder& finder, double allowed) {
    const std::vector<double>& values = finder.spectrum().values;
    const double missing = finder.missing_energy();
    const auto rank_within = [&](double tail) {
      return std::min(finder.size(), svd_rank_within(values.data(), finder.size(), tail));
    };
    rank = rank_within(allowed - missing);
    least = rank_within(allowed - missing / 2);
    tight_missing = 0.1 * static_cast<double>(rank) * values[rank - 1];
  }

  bool is_tight() const { return rank <= least + std::max<int64_t>(1, least / 20); }
};

// No value of u is beyond the largest singular value, but for rounding: only where that is near the
// largest of the dtype u must be looked at.
void check_fits(SvdDevice& device, RangeFinder& finder, const at::Tensor& map, const at::Tensor& u,
                int exponent) {
  constexpr double kMargin = 1.125;
  const double singular = std::sqrt(std::max(finder.spectrum().values[0], 0.0));
  if (kMargin * std::ldexp(singular, exponent) < largest_value(u.scalar_type())) return;
  if (std::isfinite(device.read({device.scan(u)})[1])) return;
  const at::Tensor exact = device.product(finder.image().t(), map.t()).abs().max();
  TORCH_CHECK_VALUE(false, "qvlmem::svd: expected u, which carries the singular values, to fit in ",
                    describe(u.scalar_type()), ", got ",
                    std::ldexp(device.read({exact.to(at::kDouble)})[0], exponent),
                    " in it: scale x down, or give it in a dtype of more range");
}

LowRank truncate(SvdDevice& device, const SvdMatrix& matrix, RangeFinder& finder, int64_t rank) {
  const at::Tensor map =
      finder.spectrum().eigen.leading(rank).narrow(1, 0, finder.size()).to(matrix.dtype());
  const at::TensorOptions options = matrix.options().dtype(matrix.original_dtype());
  LowRank factors{empty_output({matrix.rows(), rank}, options),
                  empty_output({rank, matrix.cols()}, options)};
  std::function<void(at::Tensor&)> scale;
  if (matrix.exponent() != 0) {
    scale = [&](at::Tensor& panel) { panel.mul_(std::ldexp(1.0, matrix.exponent())); };
  }
  device.multiply_in_panels(factors.u, finder.image().t(), map.t(), scale);
  check_fits(device, finder, map, factors.u, matrix.exponent());
  finder.multiply_basis(factors.v, map);
  return factors;
}

// Columns until the missing energy has fallen from `missing` to `aim`, at `rate` a column.
double columns_until(double missing, double aim, double rate) {
  return std::log(missing / aim) / rate;
}

// The sum of the fourth powers of the singular values of R, the missing part of A, by `products`,
// the Gram matrix of samples of it. For independent signs s and t it is E (R s . R t)^2.
double missing_fourth_powers(const std::vector<double>& products) {
  double sum = 0;
  for (int64_t i = 1; i < kFirstBlock; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      const double entry = products[i * kFirstBlock + j];
      sum += entry * entry;
    }
  }
  return sum / (kFirstBlock * (kFirstBlock - 1) / 2);
}

// The smallest k for which the k largest values that the basis holds and the k largest that it
// misses, which sum to at most sqrt(k * fourth powers), may come to what `energy` wants. At most
// `most`.
int64_t least_rank_beside(SvdDevice& device, RangeFinder& finder, double energy, int64_t most) {
  const std::vector<double> products =
      finder.read(device.gram(finder.sample_missing(kFirstBlock)).flatten());
  std::vector<double> held;
  if (finder.size() > 0) held = finder.spectrum().values;
  const double wanted = finder.energy() - missing_share(energy) * finder.energy();
  const double missing = finder.missing_energy();
  const double fourth_powers = kSamplingMargin * missing_fourth_powers(products);
  double kept = 0;
  for (int64_t k = 1; k < most; ++k) {
    if (k <= static_cast<int64_t>(held.size())) kept += held[k - 1];
    if (kept + std::min(missing, std::sqrt(k * fourth_powers)) >= wanted) return k;
  }
  return most;
}

// Whether no rank up to `most` leaves so little missing: by Ky Fan none keeps more of A than as
// many of the basis's values and all that the basis misses.
bool is_beyond(RangeFinder& finder, double allowed, int64_t most) {
  if (finder.size() <= most) return false;
  return svd_rank_within(finder.spectrum().values.data(), finder.size(), allowed) > most;
}

enum class Reached {
  kEnergy,   // at most what is allowed is missing
  kRefusal,  // rank max_rank will not do
  kNeither,
};

struct Growth {
  Reached reached;
  double rate;  // by which the logarithm of the missing energy fell, a column of the last block
};

// Grows the basis, at most doubling, until at most the share `allowed_share` is missing, or it is
// clear that rank max_rank would not do, or likely that a basis of `half` of the dimensions would
// not, which is the largest that is worth growing to. Its sizes do not depend on max_rank, or a
// factorisation that is given one would refuse what another finds. The spectrum comes with the
// blocks that may well be the last: the first, which costs little, those that were not kept to a
// doubling, and those that may tell a refusal.
Growth grow_to_energy(RangeFinder& finder, double allowed_share, int64_t half, int64_t max_rank) {
  constexpr double kAim = 0.5;    // of what is allowed: the truncation needs its share
  constexpr double kSlack = 1.5;  // a block may miss so much of what its width could have held
  double missing = 0, rate = 0;
  int64_t target = std::min(kFirstBlock, half);
  bool may_be_last = true;
  while (finder.size() < target) {
    const int64_t last_size = finder.size();
    const double last_rate = rate;
    finder.grow(target - last_size);
    if (may_be_last || target > max_rank) finder.expect_spectrum();
    const double allowed = allowed_share * finder.energy();
    const double last_missing = last_size == 0 ? finder.energy() : missing;
    missing = finder.missing_energy();
    const double size = static_cast<double>(finder.size());
    const double added = size - static_cast<double>(last_size);
    if (!(missing < last_missing)) break;  // A has no more
    rate = std::log(last_missing / missing) / added;
    if (is_beyond(finder, allowed, max_rank)) return {Reached::kRefusal, rate};
    if (missing <= allowed) return {Reached::kEnergy, rate};
    // Directions come in order: the next ones hold no more, each, than the last did. Where what is
    // missing falls ever more slowly, its logarithm will hardly fall faster than it does now.
    const double by_rate = columns_until(missing, allowed, rate);
    double least = (missing - allowed) * added / (kSlack * (last_missing - missing));
    // Of what as many directions as max_rank hold between them a block holds at least its share.
    // One of more than half as many is not taken at its word so soon.
    const double most = std::max(static_cast<double>(max_rank), 2 * added);
    if (max_rank < half && added + least > most) return {Reached::kRefusal, rate};
    if (rate < last_rate) least = std::max(least, by_rate);
    if (size + least > static_cast<double>(half)) break;
    // Flat spectra fall faster towards their end, so that half of what the rate says may do.
    if (finder.size() >= half / 8 && size + by_rate / 2 > static_cast<double>(half)) break;
    const double wanted = columns_until(missing, kAim * allowed, rate);
    const double block = std::min(wanted, size);
    may_be_last = wanted <= size;
    target = finder.size() + static_cast<int64_t>(std::max(block, kSmallestBlock));
    target = std::min(target, half);
  }
  return {Reached::kNeither, rate};
}

}  // namespace

double largest_value(at::ScalarType dtype) {
  return dtype == at::kHalf ? kFloat16Max : dtype == at::kBFloat16 ? kBFloat16Max : kFloat32Max;
}

at::ScalarType energy_dtype(double energy) {
  return missing_share(energy) < kFloat32Energy ? at::kDouble : at::kFloat;
}

std::optional<LowRank> factor_to_energy(SvdDevice& device, SvdMatrix& matrix, double energy,
                                        int64_t max_rank, uint64_t seed) {
  const int64_t least_dim = std::min(matrix.rows(), matrix.cols());
  const int64_t half = least_dim <= kTiny ? 0 : least_dim / 2;
  RangeFinder finder(device, matrix, seed);
  if (max_rank < 1) {
    finder.energy();  // that x is not finite comes first
    return std::nullopt;
  }
  const Growth growth = grow_to_energy(finder, missing_share(energy), half, max_rank);
  if (growth.reached == Reached::kRefusal) return std::nullopt;
  const bool spans = growth.reached == Reached::kNeither;
  if (spans) {
    // Before all of the space, as much of it as shows that it would be in vain.
    const int64_t telling = std::min(2 * max_rank + static_cast<int64_t>(kSmallestBlock), half);
    if (telling > max_rank && telling > finder.size()) {
      finder.grow(telling - finder.size());
      finder.expect_spectrum();
      if (is_beyond(finder, missing_share(energy) * finder.energy(), max_rank)) return std::nullopt;
    }
    finder.span();
  }
  finder.expect_spectrum();
  const double allowed = missing_share(energy) * finder.energy();
  RankEstimate found(finder, allowed);
  // More columns cost three products with A each, a refinement two for every column there is. The
  // whole space has nothing to refine.
  bool refined = spans;
  for (bool grown = false; !refined && !found.is_tight(); grown = true) {
    if (is_beyond(finder, allowed, max_rank)) return std::nullopt;
    const double columns = std::max(
        kSmallestBlock, columns_until(finder.missing_energy(), found.tight_missing, growth.rate));
    const double size = static_cast<double>(finder.size());
    refined = grown || 3 * columns > 2 * size || size + columns > static_cast<double>(half);
    if (refined) {
      finder.refine();
    } else {
      finder.grow(static_cast<int64_t>(columns));
    }
    finder.expect_spectrum();
    found = RankEstimate(finder, allowed);
  }
  if (found.rank > max_rank) return std::nullopt;
  return truncate(device, matrix, finder, found.rank);
}

LowRank factor_to_rank(SvdDevice& device, SvdMatrix& matrix, int64_t rank, uint64_t seed) {
  const int64_t least_dim = std::min(matrix.rows(), matrix.cols());
  RangeFinder finder(device, matrix, seed);
  const int64_t columns = rank + std::max<int64_t>(16, rank / 4);
  if (least_dim > kTiny && columns <= least_dim / 2) {
    finder.grow(columns);
    finder.refine();
  } else {
    finder.span();
  }
  finder.expect_spectrum();
  // Directions that were rounding beside the largest ones, then any.
  for (int64_t last = -1; finder.size() < rank && finder.size() > last;) {
    last = finder.size();
    finder.grow(rank - last);
  }
  finder.pad(rank);
  return truncate(device, matrix, finder, rank);
}

int64_t least_rank(SvdDevice& device, SvdMatrix& matrix, double energy, uint64_t seed) {
  const int64_t least_dim = std::min(matrix.rows(), matrix.cols());
  RangeFinder finder(device, matrix, seed);
  // Without a basis the sample spreads where a few directions dominate: trusted far from that.
  const int64_t at_once = least_rank_beside(device, finder, energy, least_dim);
  if (at_once >= std::max<int64_t>(least_dim / 4, 8)) return at_once;
  finder.grow(std::clamp<int64_t>(least_dim / 8, 1, kFirstBlock));
  finder.expect_spectrum();
  const int64_t beside = least_rank_beside(device, finder, energy, least_dim);
  return at_once >= kFirstBlock ? std::max(at_once, beside) : beside;
}

}  // namespace qvlmem::ops
