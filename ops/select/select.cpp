// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/base/check.h"
#include "ops/codec/codec.h"
#include "ops/quantize_ops.h"

namespace qvlmem {
namespace {

void check_options(const CompressOptions& options) {
  TORCH_CHECK_VALUE(std::isfinite(options.max_error) && options.max_error >= 0.0,
                    "qvlmem::compress: expected max_error to be finite and at least 0, got ",
                    options.max_error);
  TORCH_CHECK_VALUE(options.sparsity_threshold >= 0.0 && options.sparsity_threshold <= 1.0,
                    "qvlmem::compress: expected sparsity_threshold to be in [0, 1], got ",
                    options.sparsity_threshold);
  TORCH_CHECK_VALUE(options.compression_ratio > 0.0 && options.compression_ratio <= 1.0,
                    "qvlmem::compress: expected compression_ratio to be in (0, 1], got ",
                    options.compression_ratio);
  TORCH_CHECK_VALUE(options.group_size >= -1,
                    "qvlmem::compress: expected group_size to be -1 (a row), 0 (the tensor) or "
                    "positive, got ",
                    options.group_size);
}

// Energy 0 is no rank at all: a bound of 1 or more is met by rank 1.
constexpr double kLeastEnergy = 1e-6;

bool same_bits(const at::Tensor& x, const at::Tensor& y) {
  const at::ScalarType as_integer = x.element_size() == 4 ? at::kInt : at::kShort;
  return at::equal(x.contiguous().view(as_integer), y.view(as_integer));
}

bool meets(const CompressedTensor& c, const at::Tensor& x, const CompressOptions& options) {
  if (c.codec().exact) return true;
  if (error_within(options.bound, c.error()) > options.max_error) return false;
  return options.max_error > 0.0 || same_bits(x, c.decompress());
}

// float64 may not: only fp16 takes it, and only where it is asked for by name.
bool may_lose_bits(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
}

struct Candidate {
  const Codec* codec;
  CompressOptions options;
};

// The energy that svd is to keep: what the bound takes. A row's bound takes at least what the
// tensor's does; where it takes more, and where the bound is not one of energy, the default may
// meet it and nothing else is known.
double svd_energy(const CompressOptions& options) {
  const double by_name = CompressOptions{}.energy;
  const double needed = std::max(1.0 - options.max_error * options.max_error, kLeastEnergy);
  if (options.max_error == 0.0 || options.bound == Bound::kElement) return by_name;
  return options.bound == Bound::kRow ? std::max(by_name, needed) : needed;
}

// Every codec as its name alone would run it: what the caller says of single codecs is for calls by
// name. The exact ones come first: they always meet the bound, so there always is a result.
std::vector<Candidate> candidates(at::ScalarType dtype, const CompressOptions& options) {
  CompressOptions defaults;
  defaults.max_error = options.max_error;
  defaults.bound = options.bound;
  std::vector<Candidate> all;
  for (const Codec* codec : codec_table()) {
    if (codec->exact) all.push_back({codec, defaults});
  }
  if (!may_lose_bits(dtype)) return all;
  for (const Codec* codec : codec_table()) {
    if (codec->exact || !codec->takes(dtype)) continue;
    // svd by the energy that the bound takes and by the default one: rounding may have either miss
    // the bound, or hold more.
    if (codec->id == CodecId::kSvd && svd_energy(options) != defaults.energy) {
      CompressOptions own = defaults;
      own.energy = svd_energy(options);
      all.push_back({codec, own});
    }
    all.push_back({codec, defaults});
    const CompressOptions by_name;
    if (codec->id == CodecId::kBounded &&
        (options.max_error != by_name.max_error || options.bound != by_name.bound)) {
      // By its name alone it has another bound. It may meet this one, with one step for all where a
      // step for each row weighs more than it saves, or because no bit is lost at all.
      all.push_back({codec, by_name});
    }
    if (codec->id == CodecId::kSparse) {
      // Without pruning: the zeros alone.
      CompressOptions zeros_only = defaults;
      zeros_only.sparsity_threshold = 0.0;
      all.push_back({codec, zeros_only});
    }
  }
  return all;
}

// nullptr where the codec refuses these values: a step too fine for bounded, factors that overflow
// or hold more than most_bytes for svd.
CompressedTensorPtr try_codec(const Candidate& candidate, const at::Tensor& x, int64_t most_bytes) {
  try {
    return compress_with(*candidate.codec, x, candidate.options, most_bytes);
  } catch (const c10::ValueError&) {
    return nullptr;
  }
}

// Tries what can still win, keeps the smallest that meets the bound.
CompressedTensorPtr select(const at::Tensor& x, const CompressOptions& options) {
  // Once for all candidates.
  const at::Tensor values = x.detach().resolve_conj().resolve_neg().contiguous();
  const bool may_lose = may_lose_bits(values.scalar_type()) && ops::all_finite(values);
  CompressedTensorPtr best;
  for (const Candidate& candidate : candidates(values.scalar_type(), options)) {
    const Codec& codec = *candidate.codec;
    if (!codec.exact && !may_lose) break;
    if (best && codec.least_bytes(values, candidate.options) >= best->nbytes()) continue;
    const int64_t most_bytes = best ? best->nbytes() - 1 : std::numeric_limits<int64_t>::max();
    const CompressedTensorPtr c = try_codec(candidate, values, most_bytes);
    if (c == nullptr || (best && c->nbytes() >= best->nbytes())) continue;
    if (meets(*c, values, options)) best = c;
  }
  return best;
}

}  // namespace

CompressedTensorPtr compress(const at::Tensor& x, const std::string& method,
                             const CompressOptions& options) {
  check_options(options);
  ops::check_dense("compress", "x", x);
  // A tensor of Python's making (a fake one, a subclass) has no values that could be read here.
  TORCH_CHECK_NOT_IMPLEMENTED(
      !x.key_set().has(c10::DispatchKey::Python),
      "qvlmem::compress: expected x to be a plain tensor, got a subclass: ", ops::describe(x));
  ops::kernel_dtype("compress", x.scalar_type());
  TORCH_CHECK_NOT_IMPLEMENTED(x.device().is_cpu(), "qvlmem::compress: expected x on cpu, got ",
                              ops::describe(x),
                              x.is_cuda() ? ": this library was built without CUDA" : "");
  const RealTensorsGuard guard;
  if (x._is_zerotensor()) return compress(at::zeros(x.sizes(), x.options()), method, options);
  if (method == "auto") return select(x, options);
  const Codec* codec = find_codec(method);
  TORCH_CHECK_VALUE(codec != nullptr, "qvlmem::compress: expected method to be one of ",
                    codec_names(), ", got '", method, "'");
  try {
    return compress_with(*codec, x, options);
  } catch (const c10::ValueError& error) {
    // In the name of the op that was called: a codec's own op says its own.
    const std::string said = error.what_without_backtrace();
    if (said.rfind("qvlmem::", 0) != 0) throw;
    TORCH_CHECK_VALUE(false, "qvlmem::compress", said.substr(said.find(": ")));
  }
}

}  // namespace qvlmem
