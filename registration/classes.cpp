// SPDX-License-Identifier: Apache-2.0
// The classes of torch.classes.qvlmem. Every argument is named, or TorchScript takes no keywords.
#include <qvlmem/compressed_tensor.h>

#include "ops/codec/codec.h"
#include "registration/tables.h"

namespace qvlmem::registration {

void register_classes(torch::Library& m) {
  using Self = c10::intrusive_ptr<CompressedTensor>;
  m.class_<CompressedTensor>("CompressedTensor")
      .def("method", &CompressedTensor::method)
      .def("shape", &CompressedTensor::shape)
      .def("nbytes", &CompressedTensor::nbytes)
      .def("original_nbytes", &CompressedTensor::original_nbytes)
      .def("ratio", &CompressedTensor::ratio)
      .def("relative_error", &CompressedTensor::relative_error)
      .def("worst_row_error", &CompressedTensor::worst_row_error)
      .def("max_element_error", &CompressedTensor::max_element_error)
      .def("parts", &CompressedTensor::parts)
      .def("to", &CompressedTensor::to, "", {torch::arg("device")})
      .def("to_sparse_coo", &CompressedTensor::to_sparse_coo)
      .def_pickle([](const Self& self) -> at::Tensor { return pack(self); },
                  [](at::Tensor frame) -> Self { return unpack(frame, std::nullopt); });
}

}  // namespace qvlmem::registration
