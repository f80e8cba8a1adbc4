// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmarks/kernel_cases.h"

#include <stdexcept>
#include <utility>

#include "kernels/base/float_bits.h"
#include "kernels/bounded/bounded.h"
#include "kernels/error/error.h"
#include "kernels/half/half.h"
#include "kernels/lossless/lossless.h"
#include "kernels/profile/profile.h"
#include "kernels/quantize/quantize.h"
#include "kernels/sparse/sparse.h"
#include "kernels/svd/svd.h"

namespace qvlmem {
namespace {

// Large enough for float32 outputs to bypass the cache, as those of real tensors do.
constexpr int64_t kRows = 512, kCols = 1024;
constexpr int64_t kElements = kRows * kCols;

// ---- Buffers and inputs ----

// Memory whose address is a multiple of a cache line's, lest instructions depend on the allocator.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) : lines_(static_cast<size_t>(bytes) / sizeof(Line) + 1) {}
  template <class T = uint8_t>
  T* as() {
    return reinterpret_cast<T*>(lines_.data());
  }

 private:
  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  std::vector<Line> lines_;
};

// Nearly Gaussian values of variance 1, of which a share of `density` stays and the others are 0.
// Made by integer arithmetic and one division, so the same everywhere.
Buffer make_input(DType dtype, double density = 1.0) {
  Buffer x(kElements * dtype_bytes(dtype));
  uint64_t state = 1;
  for (int64_t i = 0; i < kElements; ++i) {
    // SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    uint64_t bits = (state += 0x9E3779B97F4A7C15u);
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9u;
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EBu;
    bits ^= bits >> 31;
    int64_t sum = -131070;
    for (int part = 0; part < 4; ++part) sum += static_cast<int64_t>(bits >> (16 * part) & 0xffff);
    const bool stays = static_cast<double>(bits % 10007) < density * 10007;
    const float value = stays ? static_cast<float>(sum) / 37837.0f : 0.0f;
    if (dtype == DType::kFloat32) {
      x.as<float>()[i] = value;
    } else {
      x.as<BFloat16>()[i] = to_bfloat16(value);
    }
  }
  return x;
}

void check(Status status) {
  if (status != Status::kOk) throw std::runtime_error("the kernel refused its input");
}

// ---- The kernels ----

using Run = std::function<void()>;

struct QuantizeCase {
  int bits = 8;
  int64_t group = 128;
  bool symmetric = true;
  bool stochastic = false;
  DType dtype = DType::kFloat32;
};

QuantizePlan plan_of(const QuantizeCase& c) {
  QuantizePlan plan;
  check(make_quantize_plan(kRows, kCols, c.bits, c.symmetric, c.group, &plan));
  return plan;
}

Run quantize_encode(const QuantizeCase& c) {
  const QuantizePlan plan = plan_of(c);
  return [=, x = make_input(c.dtype), q = Buffer(plan.rows * plan.row_bytes),
          scale = Buffer(plan.group_count * 4), zero = Buffer(plan.group_count * 4)]() mutable {
    const uint64_t seed = 7;
    check(quantize_encode_cpu(plan, x.as(), c.dtype, 0, plan.unit_count,
                              c.stochastic ? &seed : nullptr, q.as(), scale.as<float>(),
                              c.symmetric ? nullptr : zero.as<int32_t>()));
  };
}

Run quantize_decode(const QuantizeCase& c) {
  const QuantizePlan plan = plan_of(c);
  return [=, x = make_input(c.dtype), q = Buffer(plan.rows * plan.row_bytes),
          scale = Buffer(plan.group_count * 4), y = Buffer(kElements * 4)]() mutable {
    dequantize_cpu(plan, q.as(), scale.as<float>(), nullptr, 0, plan.unit_count, y.as(), c.dtype);
  };
}

Run quantize_range() {
  const QuantizePlan plan = plan_of({8, 0});
  std::vector<QuantizeRange> ranges(static_cast<size_t>(plan.unit_count));
  return [=, x = make_input(DType::kFloat32)]() mutable {
    quantize_range_cpu(plan, x.as(), DType::kFloat32, 0, plan.unit_count, ranges.data());
  };
}

Run quantize_encode_scaled() {
  const QuantizePlan plan = plan_of({8, 0});
  return [=, x = make_input(DType::kFloat32), q = Buffer(kElements)]() mutable {
    const float scale = 0.03f;
    quantize_encode_scaled_cpu(plan, x.as(), DType::kFloat32, 0, plan.unit_count, nullptr, &scale,
                               nullptr, q.as());
  };
}

HalfPlan half_plan() {
  HalfPlan plan;
  check(make_half_plan(kElements, DType::kFloat32, &plan));
  return plan;
}

Run half_encode() {
  const HalfPlan plan = half_plan();
  return [=, x = make_input(DType::kFloat32), half = Buffer(kElements * 2)]() mutable {
    half_encode_cpu(plan, x.as(), half_propose_scale_cpu(plan, x.as()), 0, plan.unit_count,
                    half.as());
  };
}

Run half_decode() {
  const HalfPlan plan = half_plan();
  return [=, half = Buffer(kElements * 2), y = Buffer(kElements * 4)]() mutable {
    half_decode_cpu(plan, half.as(), 0.5, 0, plan.unit_count, y.as());
  };
}

constexpr double kDensity = 0.2;

struct SparseCase {
  SparsePlan plan;
  SparseRule rule = sparse_nonzero_rule(DType::kFloat32, true);
  Buffer x = make_input(DType::kFloat32, kDensity);
  std::vector<SparseScratch> scratch = std::vector<SparseScratch>(2);
  std::vector<int64_t> offsets;
  Buffer indices = Buffer(kElements * 4), values = Buffer(kElements * 4), y = Buffer(kElements * 4);

  SparseCase() {
    check(make_sparse_plan(kElements, DType::kFloat32, &plan));
    offsets.resize(static_cast<size_t>(plan.unit_count) + 1);
    sparse_count_kept_cpu(plan, rule, x.as(), 0, plan.unit_count, offsets.data() + 1);
    for (int64_t u = 0; u < plan.unit_count; ++u) offsets[u + 1] += offsets[u];
    check(set_sparse_layout(offsets.back(), SparseForm::kBitmask, &plan));
  }

  void gather() {
    SparsePlacing placing;
    for (int64_t unit = 0; unit < plan.unit_count; ++unit) {
      SparseScratch* const next = &scratch[unit % 2];
      sparse_gather_and_place_cpu(plan, rule, x.as(), unit, placing, indices.as(), values.as(),
                                  next);
      placing = {next, unit, offsets[unit]};
    }
    sparse_place_cpu(plan, placing, indices.as(), values.as());
  }

  void encode() {
    check(sparse_encode_cpu(plan, rule, x.as(), 0, plan.unit_count, offsets.data(), indices.as(),
                            values.as(), scratch.data()));
  }
};

Run sparse_gather() {
  return [c = SparseCase()]() mutable { c.gather(); };
}

Run sparse_densify() {
  SparseCase coo;
  coo.gather();
  return [c = std::move(coo)]() mutable {
    check(sparse_densify_cpu(c.plan, c.indices.as<int32_t>(), c.values.as(), c.plan.nnz, 0,
                             c.plan.unit_count, c.y.as()));
  };
}

Run sparse_encode() {
  return [c = SparseCase()]() mutable { c.encode(); };
}

Run sparse_decode() {
  SparseCase bitmask;
  bitmask.encode();
  return [c = std::move(bitmask)]() mutable {
    check(sparse_decode_cpu(c.plan, c.indices.as(), c.offsets.data(), c.values.as(), 0,
                            c.plan.unit_count, c.y.as()));
  };
}

Run sparse_histogram() {
  std::vector<SparseHistogram> histogram(1);
  return [=, c = SparseCase()]() mutable {
    sparse_histogram_cpu(c.plan, c.x.as(), 0, c.plan.unit_count, SparseKeyRange{},
                         histogram.data());
  };
}

struct LosslessCase {
  LosslessPlan plan;
  int level;
  Buffer x = make_input(DType::kBFloat16), y = Buffer(kElements * 2), bytes = Buffer(0);
  int64_t size = 0;

  explicit LosslessCase(int the_level) : level(the_level) {
    check(make_lossless_plan(kElements, DType::kBFloat16, &plan));
    bytes = Buffer(plan.bound_bytes);
  }

  void encode() {
    lossless_write_header(plan, bytes.as());
    size = plan.header_bytes;
    for (int64_t unit = 0; unit < plan.unit_count; ++unit) {
      const int64_t begin = lossless_unit_begin(size);
      size = begin + lossless_encode_unit_cpu(plan, x.as(), unit, level, true, bytes.as() + begin);
      lossless_write_unit_end(plan, unit, size, bytes.as());
    }
  }
};

Run lossless_encode(int level) {
  return [c = LosslessCase(level)]() mutable { c.encode(); };
}

Run lossless_decode(int level) {
  LosslessCase encoded(level);
  encoded.encode();
  check(lossless_read_plan(encoded.bytes.as(), encoded.size, &encoded.plan));
  return [c = std::move(encoded)]() mutable {
    check(lossless_decode_cpu(c.plan, c.bytes.as(), 0, c.plan.unit_count, c.y.as()));
  };
}

struct BoundedCase {
  static constexpr DType kDType = DType::kFloat32;
  BoundedPlan plan;
  Buffer x = make_input(kDType), y = Buffer(kElements * 4), step = Buffer(kRows * 4);
  Buffer encoded = Buffer(0);
  std::vector<int32_t> bytes;
  std::vector<int64_t> offset;

  explicit BoundedCase(BoundedForm form) {
    check(make_bounded_plan(kRows, kCols, form, &plan));
    bytes.resize(static_cast<size_t>(plan.unit_count));
    offset.resize(bytes.size() + 1);
    solve();
    int64_t room = 0;
    for (int64_t u = 0; u < plan.unit_count; ++u) {
      offset[u + 1] = offset[u] + bytes[u];  // encode() tells those of the coded form
      room += bounded_unit_bound(plan, u);
    }
    encoded = Buffer(room);
  }

  void solve() {
    const BoundedTarget target{BoundedNorm::kFrobenius, 0.01};
    check(bounded_solve_cpu(plan, x.as(), kDType, target, 0, plan.unit_count, step.as<float>(),
                            bytes.data()));
  }

  void encode() {
    if (plan.form == BoundedForm::kPacked) {
      check(bounded_encode_cpu(plan, x.as(), kDType, step.as<float>(), offset.data(), 0,
                               plan.unit_count, encoded.as()));
      return;
    }
    for (int64_t u = 0; u < plan.unit_count; ++u) {
      int64_t size = 0;
      check(bounded_code_cpu(plan, x.as(), kDType, step.as<float>(), u, encoded.as() + offset[u],
                             &size));
      offset[u + 1] = offset[u] + size;
    }
  }
};

Run bounded_solve() {
  return [c = BoundedCase(BoundedForm::kPacked)]() mutable { c.solve(); };
}

Run bounded_encode(BoundedForm form) {
  return [c = BoundedCase(form)]() mutable { c.encode(); };
}

Run bounded_decode(BoundedForm form) {
  BoundedCase encoded(form);
  encoded.encode();
  return [c = std::move(encoded)]() mutable {
    check(bounded_decode_cpu(c.plan, c.encoded.as(), c.offset.data(), c.step.as<float>(), 0,
                             c.plan.unit_count, c.y.as(), BoundedCase::kDType));
  };
}

Run profile() {
  ProfilePlan plan;
  check(make_profile_plan(kRows, kCols, DType::kFloat32, &plan));
  return [=, x = make_input(DType::kFloat32),
          workspace = Buffer(static_cast<int64_t>(plan.workspace_bytes))]() mutable {
    double fields[kProfileFields];
    profile_cpu(plan, x.as(), workspace.as(), fields);
  };
}

Run error_measure() {
  ErrorPlan plan;
  check(make_error_plan(kRows, kCols, DType::kFloat32, &plan));
  std::vector<ErrorPartial> partials(static_cast<size_t>(plan.unit_count));
  return [=, x = make_input(DType::kFloat32), y = make_input(DType::kFloat32, 0.9)]() mutable {
    measure_error_cpu(plan, x.as(), y.as(), 0, plan.unit_count, partials.data());
    merge_errors(plan, partials.data());
  };
}

Run svd_scan() {
  return [x = make_input(DType::kFloat32)]() mutable {
    svd_scan_cpu(x.as(), DType::kFloat32, kElements);
  };
}

}  // namespace

int64_t kernel_case_elements() { return kElements; }

const std::vector<KernelCase>& kernel_cases() {
  static const std::vector<KernelCase> cases = {
      {"quantize_int8", [] { return quantize_encode({}); }},
      {"quantize_int8_bf16",
       [] {
         return quantize_encode({8, 128, true, false, DType::kBFloat16});
       }},
      {"quantize_int8_asymmetric",
       [] {
         return quantize_encode({8, 128, false});
       }},
      {"quantize_int8_stochastic",
       [] {
         return quantize_encode({8, 128, true, true});
       }},
      {"quantize_int4",
       [] {
         return quantize_encode({4, 64});
       }},
      {"quantize_tensor_range", quantize_range},
      {"quantize_tensor_encode", quantize_encode_scaled},
      {"dequantize_int8", [] { return quantize_decode({}); }},
      {"dequantize_int4",
       [] {
         return quantize_decode({4, 64});
       }},
      {"half_encode", half_encode},
      {"half_decode", half_decode},
      {"sparse_gather", sparse_gather},
      {"sparse_densify", sparse_densify},
      {"sparse_encode", sparse_encode},
      {"sparse_decode", sparse_decode},
      {"sparse_histogram", sparse_histogram},
      {"lossless_packed_encode", [] { return lossless_encode(1); }},
      {"lossless_packed_decode", [] { return lossless_decode(1); }},
      {"lossless_coded_encode", [] { return lossless_encode(2); }},
      {"lossless_coded_decode", [] { return lossless_decode(2); }},
      {"bounded_solve", bounded_solve},
      {"bounded_packed_encode", [] { return bounded_encode(BoundedForm::kPacked); }},
      {"bounded_packed_decode", [] { return bounded_decode(BoundedForm::kPacked); }},
      {"bounded_coded_encode", [] { return bounded_encode(BoundedForm::kCoded); }},
      {"bounded_coded_decode", [] { return bounded_decode(BoundedForm::kCoded); }},
      {"profile", profile},
      {"error_measure", error_measure},
      {"svd_scan", svd_scan},
  };
  return cases;
}

}  // namespace qvlmem
