// SPDX-License-Identifier: Apache-2.0
// The loops of each codec over a whole tensor, on one thread: what bench_kernels times. A loop owns
// its inputs and outputs, touched before; run() does the work once and answers whether it could.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/base/float_bits.h"
#include "kernels/bounded/bounded.h"
#include "kernels/half/half.h"
#include "kernels/lossless/lossless.h"
#include "kernels/quantize/quantize.h"
#include "kernels/sparse/sparse.h"

namespace qvlmem {

constexpr int64_t kCols = 4096;

// Bytes at an address as PyTorch aligns them.
class Buffer {
 public:
  explicit Buffer(int64_t bytes)
      : data_(std::aligned_alloc(64, static_cast<size_t>((bytes + 64 + 63) / 64 * 64)), std::free) {
    std::fill_n(get<uint8_t>(), bytes, uint8_t{0});
  }
  template <class T>
  T* get() const {
    return static_cast<T*>(data_.get());
  }

 private:
  std::unique_ptr<void, void (*)(void*)> data_;
};

// `bytes` of normal values of standard deviation 0.02, of which the share `zeros` is 0.
inline Buffer values(int64_t bytes, DType dtype, double zeros = 0) {
  constexpr int64_t kDistinct = 1 << 16;  // drawing them takes longer than coding them
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::bernoulli_distribution zero(zeros);
  Buffer buffer(bytes);
  const int64_t count = bytes / dtype_bytes(dtype);
  for (int64_t i = 0; i < count; ++i) {
    if (dtype == DType::kFloat32) {
      float* x = buffer.get<float>();
      x[i] = i < kDistinct ? (zero(random) ? 0.0f : normal(random)) : x[i - kDistinct];
    } else {
      uint16_t* x = buffer.get<uint16_t>();
      x[i] = i < kDistinct ? to_bfloat16(normal(random)).bits : x[i - kDistinct];
    }
  }
  return buffer;
}

class Loop {
 public:
  virtual ~Loop() = default;
  virtual bool run() = 0;
  virtual int64_t encoded_bytes() const = 0;
};

class QuantizeLoop : public Loop {
 public:
  QuantizeLoop(int64_t bytes, int bits, int64_t group, bool decode)
      : decode_(decode), x_(values(bytes, DType::kFloat32)), y_(bytes), q_(bytes), scale_(bytes) {
    make_quantize_plan(bytes / 4 / kCols, kCols, bits, true, group, &plan_);
    encode();
  }
  bool run() override {
    if (!decode_) return encode();
    dequantize_cpu(plan_, q_.get<void>(), scale_.get<float>(), nullptr, 0, plan_.unit_count,
                   y_.get<void>(), DType::kFloat32);
    return true;
  }
  int64_t encoded_bytes() const override {
    return plan_.rows * plan_.row_bytes + plan_.group_count * 4;
  }

 private:
  bool encode() {
    return quantize_encode_cpu(plan_, x_.get<void>(), DType::kFloat32, 0, plan_.unit_count, nullptr,
                               q_.get<void>(), scale_.get<float>(), nullptr) == Status::kOk;
  }
  const bool decode_;
  QuantizePlan plan_;
  Buffer x_, y_, q_, scale_;
};

class HalfLoop : public Loop {
 public:
  HalfLoop(int64_t bytes, bool decode)
      : decode_(decode), x_(values(bytes, DType::kFloat32)), y_(bytes), half_(bytes / 2) {
    make_half_plan(bytes / 4, DType::kFloat32, &plan_);
    scale_ = half_propose_scale_cpu(plan_, x_.get<void>());
    encode();
  }
  bool run() override {
    if (!decode_) return encode();
    half_decode_cpu(plan_, half_.get<void>(), scale_, 0, plan_.unit_count, y_.get<void>());
    return true;
  }
  int64_t encoded_bytes() const override { return plan_.numel * 2; }

 private:
  bool encode() {
    const double largest =
        half_encode_cpu(plan_, x_.get<void>(), scale_, 0, plan_.unit_count, half_.get<void>());
    return half_settle_scale(plan_, scale_, largest) == scale_;
  }
  const bool decode_;
  double scale_ = 1;
  HalfPlan plan_;
  Buffer x_, y_, half_;
};

// COO, four fifths zeros.
class SparseLoop : public Loop {
 public:
  SparseLoop(int64_t bytes, bool decode)
      : decode_(decode),
        x_(values(bytes, DType::kFloat32, 0.8)),
        y_(bytes),
        indices_(bytes),
        kept_(bytes),
        scratches_(new SparseScratch[2]) {
    make_sparse_plan(bytes / 4, DType::kFloat32, &plan_);
    encode();
  }
  bool run() override {
    if (!decode_) return encode();
    return sparse_densify_cpu(plan_, indices_.get<int32_t>(), kept_.get<void>(), nnz_, 0,
                              plan_.unit_count, y_.get<void>()) == Status::kOk;
  }
  int64_t encoded_bytes() const override { return nnz_ * 8; }

 private:
  bool encode() {
    const SparseRule rule = sparse_nonzero_rule(plan_.dtype, true);
    nnz_ = 0;
    SparsePlacing placing;
    for (int64_t unit = 0; unit < plan_.unit_count; ++unit) {
      SparseScratch* scratch = &scratches_[unit % 2];
      sparse_gather_and_place_cpu(plan_, rule, x_.get<void>(), unit, placing, indices_.get<void>(),
                                  kept_.get<void>(), scratch);
      if (sparse_refuses(plan_, rule, *scratch)) return false;
      placing = {scratch, unit, nnz_};
      nnz_ += scratch->count;
    }
    sparse_place_cpu(plan_, placing, indices_.get<void>(), kept_.get<void>());
    return true;
  }
  const bool decode_;
  int64_t nnz_ = 0;
  SparsePlan plan_;
  Buffer x_, y_, indices_, kept_;
  std::unique_ptr<SparseScratch[]>
      scratches_;  // the unit that is read, and the one that is written
};

// bfloat16.
class LosslessLoop : public Loop {
 public:
  LosslessLoop(int64_t bytes, int level, bool decode)
      : decode_(decode),
        level_(level),
        plan_(plan_of(bytes)),
        x_(values(bytes, DType::kBFloat16)),
        y_(bytes),
        coded_(plan_.bound_bytes) {
    lossless_write_header(plan_, coded_.get<uint8_t>());
    encode();
  }
  bool run() override {
    if (!decode_) return encode();
    return lossless_decode_cpu(plan_, coded_.get<uint8_t>(), 0, plan_.unit_count, y_.get<void>()) ==
           Status::kOk;
  }
  int64_t encoded_bytes() const override { return end_; }

 private:
  static LosslessPlan plan_of(int64_t bytes) {
    LosslessPlan plan;
    make_lossless_plan(bytes / 2, DType::kBFloat16, &plan);
    return plan;
  }
  bool encode() {
    uint8_t* out = coded_.get<uint8_t>();
    const bool stream = plan_.bound_bytes >= kStreamBytes;
    end_ = plan_.header_bytes;
    for (int64_t unit = 0; unit < plan_.unit_count; ++unit) {
      const int64_t begin = lossless_unit_begin(end_);
      end_ = begin +
             lossless_encode_unit_cpu(plan_, x_.get<void>(), unit, level_, stream, out + begin);
      lossless_write_unit_end(plan_, unit, end_, out);
    }
    return true;
  }
  const bool decode_;
  const int level_;
  int64_t end_ = 0;
  LosslessPlan plan_;
  Buffer x_, y_, coded_;
};

// 1 % of each row.
class BoundedLoop : public Loop {
 public:
  BoundedLoop(int64_t bytes, BoundedForm form, bool decode)
      : decode_(decode), x_(values(bytes, DType::kFloat32)), y_(bytes), coded_(2 * bytes) {
    make_bounded_plan(bytes / 4 / kCols, kCols, BoundedForm::kPacked, &packed_plan_);
    make_bounded_plan(bytes / 4 / kCols, kCols, form, &plan_);
    step_.resize(static_cast<size_t>(plan_.rows));
    sizes_.resize(static_cast<size_t>(packed_plan_.unit_count));
    offset_.resize(static_cast<size_t>(plan_.unit_count) + 1);
    encode();
  }
  bool run() override {
    if (!decode_) return encode();
    return bounded_decode_cpu(plan_, coded_.get<uint8_t>(), offset_.data(), step_.data(), 0,
                              plan_.unit_count, y_.get<void>(), DType::kFloat32) == Status::kOk;
  }
  int64_t encoded_bytes() const override { return offset_.back() + plan_.rows * 4; }

 private:
  // The steps come from the packed form, whichever is then written.
  bool encode() {
    const BoundedTarget target{BoundedNorm::kFrobenius, 0.01};
    if (bounded_solve_cpu(packed_plan_, x_.get<void>(), DType::kFloat32, target, 0,
                          packed_plan_.unit_count, step_.data(), sizes_.data()) != Status::kOk) {
      return false;
    }
    return plan_.form == BoundedForm::kPacked ? pack() : code();
  }
  bool pack() {
    const int64_t total = std::accumulate(sizes_.begin(), sizes_.end(), int64_t{0});
    return bounded_offsets(plan_, sizes_.data(), total, offset_.data()) == Status::kOk &&
           bounded_encode_cpu(plan_, x_.get<void>(), DType::kFloat32, step_.data(), offset_.data(),
                              0, plan_.unit_count, coded_.get<uint8_t>()) == Status::kOk;
  }
  bool code() {
    for (int64_t unit = 0; unit < plan_.unit_count; ++unit) {
      int64_t size = 0;
      if (bounded_code_cpu(plan_, x_.get<void>(), DType::kFloat32, step_.data(), unit,
                           coded_.get<uint8_t>() + offset_[unit], &size) != Status::kOk) {
        return false;
      }
      offset_[unit + 1] = offset_[unit] + size;
    }
    return true;
  }
  const bool decode_;
  BoundedPlan packed_plan_, plan_;
  Buffer x_, y_, coded_;
  std::vector<float> step_;
  std::vector<int32_t> sizes_;
  std::vector<int64_t> offset_;
};

}  // namespace qvlmem
