// SPDX-License-Identifier: Apache-2.0
#include "ops/codec/codec.h"
#include "ops/memory/config.h"
#include "registration/tables.h"

namespace qvlmem::registration {
namespace {

CompressedTensorPtr compress_op(const at::Tensor& x, std::string method, double max_error,
                                std::string bound, bool symmetric, int64_t group_size,
                                bool adaptive_rank, double compression_ratio,
                                double sparsity_threshold) {
  CompressOptions options;
  options.max_error = max_error;
  options.bound = parse_bound("compress", bound);
  options.symmetric = symmetric;
  options.group_size = group_size;
  options.adaptive_rank = adaptive_rank;
  options.compression_ratio = compression_ratio;
  options.sparsity_threshold = sparsity_threshold;
  options.prefer = process_prefer();
  return compress(x, method, options);
}

void configure_op(std::string conf) { configure(conf); }

}  // namespace

void register_composite(torch::Library& m) {
  m.impl("profile", TORCH_FN(profile));
  m.impl("compress", TORCH_FN(compress_op));
  m.impl("decompress", TORCH_FN(decompress));
  m.impl("pack", TORCH_FN(pack));
  m.impl("unpack", TORCH_FN(unpack));
  m.impl("configure", TORCH_FN(configure_op));
  m.impl("memory_stats", TORCH_FN(memory_stats));
}

}  // namespace qvlmem::registration
