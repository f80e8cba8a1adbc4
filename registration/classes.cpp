// SPDX-License-Identifier: Apache-2.0
// The classes of torch.classes.qvlmem. Every argument is named, or TorchScript takes no keywords.
#include <qvlmem/compressed_tensor.h>

#include "ops/codec/codec.h"
#include "ops/memory/manager.h"
#include "registration/tables.h"

namespace qvlmem::registration {

void register_classes(torch::Library& m) {
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
      .def_pickle(
          [](const CompressedTensorPtr& self) -> at::Tensor { return pack(self); },
          [](at::Tensor frame) -> CompressedTensorPtr { return unpack(frame, std::nullopt); });

  using ManagerPtr = c10::intrusive_ptr<CompressionManager>;
  m.class_<CompressionManager>("CompressionManager")
      .def(torch::init<std::string>(), "", {torch::arg("config") = ""})
      .def("compress_tensor", &CompressionManager::compress_tensor, "",
           {torch::arg("x"), torch::arg("method") = "auto"})
      .def("decompress_tensor", &CompressionManager::decompress_tensor, "", {torch::arg("c")})
      .def("get_compression_stats", &CompressionManager::get_compression_stats)
      .def("reset_stats", &CompressionManager::reset_stats)
      .def("config", &CompressionManager::config_dict)
      .def_pickle([](const ManagerPtr& self) -> std::string { return self->config_text(); },
                  [](std::string config) -> ManagerPtr {
                    return c10::make_intrusive<CompressionManager>(std::move(config));
                  });
}

}  // namespace qvlmem::registration
