// SPDX-License-Identifier: Apache-2.0
#include "ops/memory/pool.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "ops/base/check.h"

namespace qvlmem {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr const char* kKinds[] = {"weights", "activations", "kv_cache", "image_features",
                                  "temporary"};

// Four classes between powers of two: at most a quarter of a block is rounding, and a tensor that
// is a little larger than the one before still finds its block.
int64_t size_class(int64_t bytes) {
  bytes = std::max(bytes, kAlignment);
  const int64_t power = int64_t{1} << (63 - __builtin_clzll(static_cast<uint64_t>(bytes)));
  const int64_t step = std::max(power / 4, kAlignment);
  return (bytes + step - 1) / step * step;
}

void* allocate_block(int64_t bytes) {
  const bool is_huge = bytes >= kHugePage;
  void* block = nullptr;
  if (posix_memalign(&block, is_huge ? kHugePage : kAlignment, static_cast<size_t>(bytes)) != 0) {
    return nullptr;
  }
  // Only a hint: fewer page faults where the kernel has huge pages to give.
  if (is_huge) madvise(block, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return block;
}

}  // namespace

class PoolArena {
 public:
  explicit PoolArena(int64_t budget) : budget_(budget) {}
  ~PoolArena() { trim(); }
  PoolArena(const PoolArena&) = delete;
  PoolArena& operator=(const PoolArena&) = delete;

  // nullptr where there is no room.
  void* take(int64_t bytes) {
    const int64_t size = size_class(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    SizeClass& of_size = free_[size];
    void* block = nullptr;
    if (!of_size.free.empty()) {
      block = of_size.free.back();
      of_size.free.pop_back();
      ++hits_;
    } else {
      if (size > budget_ - reserved_) trim_locked();
      if (size > budget_ - reserved_) return nullptr;
      // Room for the block's return, which must not fail.
      of_size.free.reserve(of_size.blocks + 1);
      block = allocate_block(size);
      if (block == nullptr) {
        trim_locked();
        block = allocate_block(size);
        if (block == nullptr) return nullptr;
      }
      ++of_size.blocks;
      reserved_ += size;
      ++misses_;
    }
    allocated_ += bytes;
    peak_allocated_ = std::max(peak_allocated_, allocated_);
    peak_reserved_ = std::max(peak_reserved_, reserved_);
    return block;
  }

  void give_back(void* block, int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.find(size_class(bytes))->second.free.push_back(block);
    allocated_ -= bytes;
  }

  void trim() {
    const std::lock_guard<std::mutex> lock(mutex_);
    trim_locked();
  }

  c10::Dict<std::string, double> stats() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    c10::Dict<std::string, double> dict;
    const auto insert = [&dict](const char* name, int64_t value) {
      dict.insert(name, static_cast<double>(value));
    };
    insert("allocated_bytes", allocated_);
    insert("reserved_bytes", reserved_);
    insert("peak_allocated_bytes", peak_allocated_);
    insert("peak_reserved_bytes", peak_reserved_);
    insert("hits", hits_);
    insert("misses", misses_);
    return dict;
  }

  int64_t budget() const { return budget_; }

 private:
  void trim_locked() {
    for (auto& [size, of_size] : free_) {
      for (void* block : of_size.free) std::free(block);
      reserved_ -= size * static_cast<int64_t>(of_size.free.size());
      of_size.blocks -= of_size.free.size();
      of_size.free.clear();
    }
  }

  struct SizeClass {
    std::vector<void*> free;
    size_t blocks = 0;  // in use and free
  };

  const int64_t budget_;
  mutable std::mutex mutex_;
  std::map<int64_t, SizeClass> free_;
  int64_t allocated_ = 0, reserved_ = 0, peak_allocated_ = 0, peak_reserved_ = 0;
  int64_t hits_ = 0, misses_ = 0;
};

MemoryPool::MemoryPool(std::string kind, std::string config)
    : kind_(std::move(kind)), config_(process_config().overlaid(config, "MemoryPool: config")) {
  const bool known = std::find(std::begin(kKinds), std::end(kKinds), kind_) != std::end(kKinds);
  TORCH_CHECK_VALUE(known,
                    "qvlmem::MemoryPool: expected kind to be one of weights, activations, "
                    "kv_cache, image_features, temporary, got '",
                    kind_, "'");
  arena_ = std::make_shared<PoolArena>(config_.bytes("cpu_budget", physical_memory_bytes()));
}

at::Tensor MemoryPool::empty(at::IntArrayRef shape, at::ScalarType dtype) {
  TORCH_CHECK_TYPE(!c10::isQIntType(dtype),
                   "qvlmem::MemoryPool.empty: expected a dtype that is not quantized, got ",
                   ops::describe(dtype));
  const int64_t element_bytes = static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t bytes = ops::check_sizes("MemoryPool.empty", shape, element_bytes) * element_bytes;
  const auto options = at::TensorOptions().dtype(dtype);
  if (bytes == 0) return at::empty(shape, options);
  void* block = bytes < (int64_t{1} << 61) ? arena_->take(bytes) : nullptr;
  TORCH_CHECK_WITH(OutOfMemoryError, block != nullptr, "qvlmem::MemoryPool.empty: no room for ",
                   bytes, " bytes in the pool of ", kind_, " (cpu_budget ", arena_->budget(),
                   ", reserved ", static_cast<int64_t>(arena_->stats().at("reserved_bytes")), ")");
  return at::from_blob(
      block, shape, [arena = arena_, bytes](void* memory) { arena->give_back(memory, bytes); },
      options);
}

CompressedTensorPtr MemoryPool::hold(const CompressedTensorPtr& c) {
  const RealTensorsGuard guard;
  Payload held{c->payload().params, {}};
  for (const at::Tensor& part : c->payload().parts) {
    held.parts.push_back(empty(part.sizes(), part.scalar_type()).copy_(part));
  }
  return c10::make_intrusive<CompressedTensor>(c->codec(), c->info(), std::move(held), c->error());
}

c10::Dict<std::string, double> MemoryPool::stats() const { return arena_->stats(); }

void MemoryPool::trim() { arena_->trim(); }

}  // namespace qvlmem
