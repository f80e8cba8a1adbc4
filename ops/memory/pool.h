// SPDX-License-Identifier: Apache-2.0
// torch.classes.qvlmem.MemoryPool: CPU memory for one kind of tensor, kept for the next one of its
// size.
#pragma once

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>
#include <qvlmem/compressed_tensor.h>
#include <torch/custom_class.h>

#include <memory>
#include <string>

#include "ops/memory/config.h"

namespace qvlmem {

class PoolArena;

// Thread-safe. A tensor of the pool may outlive it.
class MemoryPool final : public torch::CustomClassHolder {
 public:
  // kind: weights, activations, kv_cache, image_features or temporary; ValueError for another. The
  // configuration's cpu_budget limits what the pool holds, in use and free together.
  MemoryPool(std::string kind, std::string config);

  // An uninitialized, contiguous CPU tensor, aligned to 64 bytes. OutOfMemoryError where the budget
  // or the machine has no room, after free blocks were given back.
  at::Tensor empty(at::IntArrayRef shape, at::ScalarType dtype);

  // c with copies of its parts in this pool's memory. OutOfMemoryError as for empty.
  CompressedTensorPtr hold(const CompressedTensorPtr& c);

  // allocated_bytes (of tensors alive), reserved_bytes (with rounding and free blocks), peaks of
  // both, hits (a free block served), misses (new memory was needed).
  c10::Dict<std::string, double> stats() const;
  // Gives free blocks back to the system.
  void trim();

  const std::string& kind() const { return kind_; }
  const Config& config() const { return config_; }

 private:
  std::string kind_;
  Config config_;
  std::shared_ptr<PoolArena> arena_;
};

}  // namespace qvlmem
