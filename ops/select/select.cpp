// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "ops/backend.h"
#include "ops/base/check.h"
#include "ops/base/heap.h"
#include "ops/codec/codec.h"
#include "ops/codec/codec_table.h"

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

// A codec that runs at memory speed, and the least error that it leaves values which favour none of
// its levels: with steps of absmax / 7 (int4) that is 1 / (7 sqrt(12)), since no norm exceeds
// absmax times the root of the count.
struct FastCodec {
  CodecId id;
  double usual_error;
};

// In the order that prefer:speed tries them: by what decoding costs, then by bytes, then by what
// encoding costs. The README says it too.
constexpr FastCodec kFastestFirst[] = {
    {CodecId::kInt4, 0.04},  {CodecId::kInt8, 0.002},   {CodecId::kFp16, 1e-4},
    {CodecId::kSparse, 0.0}, {CodecId::kLossless, 0.0}, {CodecId::kBounded, 0.0},
};

bool is_fast(const Codec& codec) {
  return std::any_of(std::begin(kFastestFirst), std::end(kFastestFirst),
                     [&codec](const FastCodec& fast) { return fast.id == codec.id; });
}

// The energy that svd is to keep: what the bound takes. A row's bound takes at least what the
// tensor's does; where it takes more, and where the bound is not one of energy, the default may
// meet it and nothing else is known.
double svd_energy(const CompressOptions& options) {
  const double by_name = CompressOptions{}.energy;
  const double needed = std::max(1.0 - options.max_error * options.max_error, kLeastEnergy);
  if (options.max_error == 0.0 || options.bound == Bound::kElement) return by_name;
  return options.bound == Bound::kRow ? std::max(by_name, needed) : needed;
}

// What the caller says of single codecs is for calls by name: here each runs as its name alone
// would have it.
CompressOptions default_options(const CompressOptions& options) {
  CompressOptions defaults;
  defaults.max_error = options.max_error;
  defaults.bound = options.bound;
  defaults.prefer = options.prefer;
  return defaults;
}

// sparse without pruning: the zeros alone.
CompressOptions zeros_only(CompressOptions options) {
  options.sparsity_threshold = 0.0;
  return options;
}

// prefer:speed. The first that holds is taken, so what can hardly hold is left out.
std::vector<Candidate> fastest_first(bool may_lose, const CompressOptions& options) {
  const CompressOptions defaults = default_options(options);
  std::vector<Candidate> all;
  for (const FastCodec& fast : kFastestFirst) {
    const Codec* codec = find_codec(fast.id);
    if (!codec->exact && (!may_lose || options.max_error < fast.usual_error)) continue;
    const bool is_sparse = codec->id == CodecId::kSparse;
    all.push_back({codec, is_sparse ? zeros_only(defaults) : defaults});
  }
  return all;
}

// prefer:size and prefer:balanced. The exact ones come first: they always meet the bound.
std::vector<Candidate> candidates(bool may_lose, const CompressOptions& options) {
  const CompressOptions defaults = default_options(options);
  const bool only_fast = options.prefer == Prefer::kBalanced;
  std::vector<Candidate> all;
  if (!only_fast) {
    // It goes by a sample, so that level 2 may hold more than level 1.
    CompressOptions level_1 = defaults;
    level_1.prefer = Prefer::kBalanced;
    all.push_back({&kLosslessCodec, level_1});
  }
  for (const Codec* codec : codec_table()) {
    if (codec->exact && codec->id != CodecId::kNone) all.push_back({codec, defaults});
  }
  if (!may_lose) return all;
  for (const Codec* codec : codec_table()) {
    if (codec->exact || (only_fast && !is_fast(*codec))) continue;
    // svd by the energy that the bound takes and by the default one: rounding may have either miss
    // the bound, or hold more.
    if (codec->id == CodecId::kSvd && svd_energy(options) != defaults.energy) {
      CompressOptions own = defaults;
      own.energy = svd_energy(options);
      all.push_back({codec, own});
    }
    all.push_back({codec, defaults});
    CompressOptions by_name;
    by_name.prefer = options.prefer;
    if (codec->id == CodecId::kBounded &&
        (options.max_error != by_name.max_error || options.bound != by_name.bound)) {
      // By its name alone it has another bound. It may meet this one, with one step for all where a
      // step for each row weighs more than it saves, or because no bit is lost at all.
      all.push_back({codec, by_name});
    }
    if (codec->id == CodecId::kSparse) all.push_back({codec, zeros_only(defaults)});
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

// Tries what can still win. Keeps the smallest that meets the bound, or with prefer:speed the first
// that is smaller than x.
CompressedTensorPtr select(const at::Tensor& x, const CompressOptions& options) {
  // Once for all candidates.
  const at::Tensor dense = ops::contiguous(x.detach().resolve_conj().resolve_neg());
  at::Tensor on_host;  // copied when the first codec asks for it
  const bool may_lose =
      may_lose_bits(dense.scalar_type()) && backend_of("compress", "x", dense).all_finite(dense);
  const bool first_wins = options.prefer == Prefer::kSpeed;
  CompressedTensorPtr best;
  int64_t most_bytes = static_cast<int64_t>(dense.nbytes()) - 1;
  for (const Candidate& candidate :
       first_wins ? fastest_first(may_lose, options) : candidates(may_lose, options)) {
    const bool on_device = candidate.codec->encodes_on_device(candidate.options);
    if (!on_device && !on_host.defined()) {
      on_host = backend_of("compress", "x", dense).to_host("compress", dense);
    }
    const at::Tensor& values = on_device ? dense : on_host;
    if (candidate.codec->least_bytes(values, candidate.options, most_bytes) > most_bytes) continue;
    const CompressedTensorPtr c = try_codec(candidate, values, most_bytes);
    if (c == nullptr || c->nbytes() > most_bytes || !meets(*c, values, options)) continue;
    best = c;
    most_bytes = c->nbytes() - 1;
    if (first_wins) break;
  }
  return best ? best->to(x.device()) : compress_with(kNoneCodec, dense, options);
}

CompressedTensorPtr compress_by(const std::string& method, const at::Tensor& x,
                                const CompressOptions& options) {
  if (method == "auto") return select(x, options);
  const Codec* codec = find_codec(method);
  TORCH_CHECK_VALUE(codec != nullptr, "qvlmem::compress: expected method to be one of ",
                    codec_names(), ", got '", method, "'");
  try {
    return compress_with(*codec, where_codec_runs(*codec, x, options), options)->to(x.device());
  } catch (const c10::ValueError& error) {
    // In the name of the op that was called: a codec's own op says its own.
    const std::string said = error.what_without_backtrace();
    if (said.rfind("qvlmem::", 0) != 0) throw;
    TORCH_CHECK_VALUE(false, "qvlmem::compress", said.substr(said.find(": ")));
  }
}

// From here on its buffers may be more than malloc should keep.
constexpr size_t kLargeTensor = size_t{1} << 20;

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
  ops::check_device("compress", "x", x);
  const RealTensorsGuard guard;
  if (x._is_zerotensor()) return compress(at::zeros(x.sizes(), x.options()), method, options);
  CompressedTensorPtr c = compress_by(method, x, options);
  if (x.nbytes() >= kLargeTensor) ops::release_free_heap();
  return c;
}

}  // namespace qvlmem
