// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>

#include <cmath>

#include "ops/base/check.h"
#include "ops/codec/codec.h"

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

// Tries what can still win, keeps the smallest that meets the bound. The table's exact codecs come
// first: they always meet it, so there is always a result.
CompressedTensorPtr select(const at::Tensor& x, const CompressOptions& options) {
  const at::Tensor values = x.detach();
  const bool may_lose =
      may_lose_bits(values.scalar_type()) && at::isfinite(values).all().item<bool>();
  CompressedTensorPtr best;
  for (const bool exact : {true, false}) {
    if (!exact && !may_lose) break;
    for (const Codec* codec : codec_table()) {
      if (codec->exact != exact || !codec->takes(values.scalar_type())) continue;
      if (best && codec->least_bytes(values, options) >= best->nbytes()) continue;
      const CompressedTensorPtr candidate = compress_with(*codec, values, options);
      const bool smaller = !best || candidate->nbytes() < best->nbytes();
      if (smaller && meets(*candidate, values, options)) best = candidate;
    }
  }
  return best;
}

}  // namespace

CompressedTensorPtr compress(const at::Tensor& x, const std::string& method,
                             const CompressOptions& options) {
  check_options(options);
  ops::check_dense("compress", "x", x);
  TORCH_CHECK_NOT_IMPLEMENTED(x.device().is_cpu(), "qvlmem::compress: expected x on cpu, got ",
                              ops::describe(x), ": this library was built without CUDA");
  if (method == "auto") return select(x, options);
  const Codec* codec = find_codec(method);
  TORCH_CHECK_VALUE(codec != nullptr, "qvlmem::compress: expected method to be one of ",
                    codec_names(), ", got '", method, "'");
  return compress_with(*codec, x, options);
}

}  // namespace qvlmem
