// SPDX-License-Identifier: Apache-2.0
// The operators on tensors as the C++ functions of <qvlmem/qvlmem.h>. They go through the
// dispatcher, so that every back end, autograd and whatever else listens there sees them.
#include <ATen/core/dispatch/Dispatcher.h>
#include <qvlmem/qvlmem.h>

namespace qvlmem {
namespace {

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> quantize(const at::Tensor& x, int64_t bits,
                                                        bool symmetric, int64_t group_size,
                                                        std::optional<int64_t> rounding_seed) {
  static const auto op = find<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
      const at::Tensor&, int64_t, bool, int64_t, std::optional<int64_t>)>("qvlmem::quantize");
  return op.call(x, bits, symmetric, group_size, rounding_seed);
}

at::Tensor dequantize(const at::Tensor& q, const at::Tensor& scale, const at::Tensor& zero_point,
                      at::IntArrayRef shape, int64_t bits, int64_t group_size,
                      std::optional<at::ScalarType> dtype) {
  static const auto op =
      find<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, c10::SymIntArrayRef,
                      int64_t, int64_t, std::optional<at::ScalarType>)>("qvlmem::dequantize");
  return op.call(q, scale, zero_point, c10::fromIntArrayRefSlow(shape), bits, group_size, dtype);
}

std::tuple<at::Tensor, at::Tensor> to_fp16(const at::Tensor& x) {
  static const auto op =
      find<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&)>("qvlmem::to_fp16");
  return op.call(x);
}

at::Tensor from_fp16(const at::Tensor& half, const at::Tensor& scale,
                     std::optional<at::ScalarType> dtype) {
  static const auto op =
      find<at::Tensor(const at::Tensor&, const at::Tensor&, std::optional<at::ScalarType>)>(
          "qvlmem::from_fp16");
  return op.call(half, scale, dtype);
}

at::Tensor profile_values(const at::Tensor& x) {
  static const auto op = find<at::Tensor(const at::Tensor&)>("qvlmem::profile_values");
  return op.call(x);
}

std::tuple<at::Tensor, at::Tensor> svd(const at::Tensor& x, bool adaptive_rank,
                                       double compression_ratio, double energy,
                                       std::optional<int64_t> rank, int64_t seed) {
  static const auto op = find<std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, bool, double, double, std::optional<int64_t>, int64_t)>("qvlmem::svd");
  return op.call(x, adaptive_rank, compression_ratio, energy, rank, seed);
}

at::Tensor svd_reconstruct(const at::Tensor& u, const at::Tensor& v, at::IntArrayRef shape,
                           std::optional<at::ScalarType> dtype) {
  static const auto op = find<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymIntArrayRef,
                                         std::optional<at::ScalarType>)>("qvlmem::svd_reconstruct");
  return op.call(u, v, c10::fromIntArrayRefSlow(shape), dtype);
}

at::Tensor lossless_encode(const at::Tensor& x, int64_t level) {
  static const auto op = find<at::Tensor(const at::Tensor&, int64_t)>("qvlmem::lossless_encode");
  return op.call(x, level);
}

at::Tensor lossless_decode(const at::Tensor& bytes, at::IntArrayRef shape, at::ScalarType dtype) {
  static const auto op = find<at::Tensor(const at::Tensor&, c10::SymIntArrayRef, at::ScalarType)>(
      "qvlmem::lossless_decode");
  return op.call(bytes, c10::fromIntArrayRefSlow(shape), dtype);
}

std::tuple<at::Tensor, at::Tensor> sparsify(const at::Tensor& x, double sparsity_threshold,
                                            bool prune) {
  static const auto op =
      find<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, double, bool)>("qvlmem::sparsify");
  return op.call(x, sparsity_threshold, prune);
}

at::Tensor densify(const at::Tensor& indices, const at::Tensor& values, at::IntArrayRef shape) {
  static const auto op =
      find<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymIntArrayRef)>(
          "qvlmem::densify");
  return op.call(indices, values, c10::fromIntArrayRefSlow(shape));
}

}  // namespace qvlmem
