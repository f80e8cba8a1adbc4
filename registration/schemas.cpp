// SPDX-License-Identifier: Apache-2.0
// Every operator's schema: the public surface, word for word.
#include "registration/tables.h"

namespace qvlmem::registration {

void register_schemas(torch::Library& m) {
  m.def(
      "quantize(Tensor x, int bits=8, bool symmetric=True, int group_size=0, "
      "int? rounding_seed=None) -> (Tensor q, Tensor scale, Tensor zero_point)");
  m.def(
      "dequantize(Tensor q, Tensor scale, Tensor zero_point, SymInt[] shape, int bits=8, "
      "int group_size=0, ScalarType? dtype=None) -> Tensor");
  m.def("lossless_decode(Tensor bytes, SymInt[] shape, ScalarType dtype) -> Tensor");
  m.def("to_fp16(Tensor x) -> (Tensor half, Tensor scale)");
  m.def("from_fp16(Tensor half, Tensor scale, ScalarType? dtype=None) -> Tensor");
  m.def("svd_reconstruct(Tensor u, Tensor v, SymInt[] shape, ScalarType? dtype=None) -> Tensor");
  m.def("profile_values(Tensor x) -> Tensor");
  m.def("densify(Tensor indices, Tensor values, SymInt[] shape) -> Tensor");

  // Objects and dictionaries cannot be traced: this tag has torch.compile break the graph around
  // the op, and run it as it is.
  const auto untraceable = [&m](const char* schema) {
    m.def(schema, {at::Tag::data_dependent_output});
  };
  untraceable("profile(Tensor x) -> Dict(str, float)");
  untraceable(
      "compress(Tensor x, str method=\"auto\", *, float max_error=0.01, str bound=\"tensor\", "
      "bool symmetric=True, int group_size=128, bool adaptive_rank=True, "
      "float compression_ratio=0.5, float sparsity_threshold=0.5) "
      "-> __torch__.torch.classes.qvlmem.CompressedTensor");
  // Conservative, or torch.jit.freeze would put the tensor itself in the place of what holds it
  // compressed.
  m.def(torch::schema("decompress(__torch__.torch.classes.qvlmem.CompressedTensor c) -> Tensor",
                      c10::AliasAnalysisKind::CONSERVATIVE),
        {at::Tag::data_dependent_output});
  untraceable("pack(__torch__.torch.classes.qvlmem.CompressedTensor c) -> Tensor");
  untraceable(
      "unpack(Tensor frame, Device? device=None) "
      "-> __torch__.torch.classes.qvlmem.CompressedTensor");
  untraceable("decompress_frames(Tensor[] frames) -> Tensor[]");

  // Conservative, or TorchScript's passes would drop a call whose result nobody uses.
  const auto with_effect = [&m](const char* schema) {
    m.def(torch::schema(schema, c10::AliasAnalysisKind::CONSERVATIVE));
  };
  with_effect("configure(str conf) -> ()");
  with_effect("memory_stats() -> Dict(str, float)");

  // Sizes that depend on the data: PyTorch takes the fake kernels of these from Python alone.
  m.set_python_module("qvlmem._fakes");
  m.def(
      "svd(Tensor x, bool adaptive_rank=True, float compression_ratio=0.5, float energy=0.99, "
      "int? rank=None, int seed=0) -> (Tensor u, Tensor v)");
  m.def(
      "sparsify(Tensor x, float sparsity_threshold=0.5, bool prune=True) "
      "-> (Tensor indices, Tensor values)");
  m.def("lossless_encode(Tensor x, int level=1) -> Tensor");
}

}  // namespace qvlmem::registration
