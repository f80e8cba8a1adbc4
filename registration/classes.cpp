// SPDX-License-Identifier: Apache-2.0
// The classes of torch.classes.qvlmem. Every argument is named, or TorchScript takes no keywords.
#include <qvlmem/compressed_tensor.h>

#include "ops/codec/codec.h"
#include "ops/memory/hierarchical_cache.h"
#include "ops/memory/manager.h"
#include "ops/memory/pool.h"
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
      .def_pickle([](const ManagerPtr& self) -> std::string { return self->config().text(); },
                  [](std::string config) -> ManagerPtr {
                    return c10::make_intrusive<CompressionManager>(std::move(config));
                  });

  using PoolPtr = c10::intrusive_ptr<MemoryPool>;
  m.class_<MemoryPool>("MemoryPool")
      .def(torch::init<std::string, std::string>(), "",
           {torch::arg("kind"), torch::arg("config") = ""})
      .def("empty",
           [](const PoolPtr& self, std::vector<int64_t> shape, at::ScalarType dtype) {
             return self->empty(shape, dtype);
           },
           "", {torch::arg("shape"), torch::arg("dtype")})
      .def("hold", &MemoryPool::hold, "", {torch::arg("c")})
      .def("stats", &MemoryPool::stats)
      .def("trim", &MemoryPool::trim)
      .def_pickle(
          [](const PoolPtr& self) -> std::tuple<std::string, std::string> {
            return {self->kind(), self->config().text()};
          },
          [](std::tuple<std::string, std::string> state) -> PoolPtr {
            return c10::make_intrusive<MemoryPool>(std::get<0>(state), std::get<1>(state));
          });

  using CachePtr = c10::intrusive_ptr<HierarchicalCache>;
  m.class_<HierarchicalCache>("HierarchicalCache")
      .def(torch::init<ManagerPtr, std::string>(), "",
           {torch::arg("manager"), torch::arg("config") = ""})
      .def("put", &HierarchicalCache::put, "", {torch::arg("key"), torch::arg("x")})
      .def("put_compressed", &HierarchicalCache::put_compressed, "",
           {torch::arg("key"), torch::arg("c")})
      .def("get", &HierarchicalCache::get, "", {torch::arg("key")})
      .def("contains", &HierarchicalCache::contains, "", {torch::arg("key")})
      .def("tier_of", &HierarchicalCache::tier_of, "", {torch::arg("key")})
      .def("prefetch", &HierarchicalCache::prefetch, "", {torch::arg("keys")})
      .def("remove", &HierarchicalCache::remove, "", {torch::arg("key")})
      .def("keys", &HierarchicalCache::keys)
      .def("flush", &HierarchicalCache::flush)
      .def("clear", &HierarchicalCache::clear)
      .def("stats", &HierarchicalCache::stats)
      .def_pickle(
          [](const CachePtr& self) -> std::tuple<ManagerPtr, std::string> {
            return {self->manager(), self->config().text()};
          },
          [](std::tuple<ManagerPtr, std::string> state) -> CachePtr {
            return c10::make_intrusive<HierarchicalCache>(std::get<0>(state), std::get<1>(state));
          });
}

}  // namespace qvlmem::registration
