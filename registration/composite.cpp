// SPDX-License-Identifier: Apache-2.0
#include "ops/base/check.h"
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

// An op of one CompressedTensor. Boxed, since what PyTorch says of an object of another class names
// neither the op nor the argument.
template <at::Tensor (*function)(const CompressedTensorPtr&)>
void of_compressed_tensor(const c10::OperatorHandle& op, c10::Stack* stack) {
  const c10::IValue c = torch::jit::pop(*stack);
  TORCH_CHECK_TYPE(c.isObject() && *c.type() == *c10::getCustomClassType<CompressedTensorPtr>(),
                   op.schema().name(), ": expected c to be a CompressedTensor, got ",
                   c.type()->annotation_str());
  stack->emplace_back(function(c.toCustomClass<CompressedTensor>()));
}

void configure_op(std::string conf) { configure(conf); }

}  // namespace

void register_composite(torch::Library& m) {
  m.impl("profile", TORCH_FN(profile));
  m.impl("compress", TORCH_FN(compress_op));
  m.impl("decompress",
         torch::CppFunction::makeFromBoxedFunction<of_compressed_tensor<decompress>>());
  m.impl("pack", torch::CppFunction::makeFromBoxedFunction<of_compressed_tensor<pack>>());
  m.impl("unpack", TORCH_FN(unpack));
  m.impl("decompress_frames", TORCH_FN(decompress_frames));
  m.impl("configure", TORCH_FN(configure_op));
  m.impl("memory_stats", TORCH_FN(memory_stats));
  // Back ends with a kernel of their own come before this one.
  for (const char* op : kTensorOps) {
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<ops::throw_no_kernel>());
  }
}

}  // namespace qvlmem::registration
