// SPDX-License-Identifier: Apache-2.0
#include "ops/bounded_ops.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/bounded/bounded_row_search.h"
#include "ops/backend.h"
#include "ops/base/check.h"
#include "ops/base/ordered_units.h"
#include "ops/base/output.h"
#include "ops/base/parallel.h"
#include "ops/base/reserved_bytes.h"
#include "ops/codec/codec_table.h"

namespace qvlmem {
namespace {

constexpr const char* kOp = "bounded";
// Units that a thread takes at least: 32 Ki values, below which waking a thread costs more.
constexpr int64_t kGrain = 4;
// Units of which a sample tells whether coding pays.
constexpr int64_t kSampleUnits = 16;
// Below this many values a code's table costs more time than what it saves is worth.
constexpr int64_t kLeastCoded = 2048;

// Runs body(begin, end), which returns a Status, over [0, count) on all threads. Returns kNonFinite
// where anybody did, else any answer that is not kOk.
template <class Body>
Status parallel_status(int64_t count, const Body& body) {
  std::atomic<Status> answer{Status::kOk};
  ops::parallel_units(count, kGrain, [&](int64_t begin, int64_t end) {
    const Status status = body(begin, end);
    Status before = answer.load(std::memory_order_relaxed);
    while (status != Status::kOk && before != Status::kNonFinite &&
           !answer.compare_exchange_weak(before, status, std::memory_order_relaxed)) {
    }
  });
  return answer.load();
}

// The search for the steps of rows that are longer than a unit, all rows side by side.
class LongRowSearch {
 public:
  LongRowSearch(const BoundedPlan& plan, const void* x, DType dtype, const BoundedTarget& target,
                float* step, int32_t* bytes)
      : plan_(plan), x_(x), dtype_(dtype), target_(target), step_(step), bytes_(bytes) {}

  Status run() {
    std::vector<BoundedMoments> parts(plan_.unit_count);
    ops::parallel_units(plan_.unit_count, kGrain, [&](int64_t begin, int64_t end) {
      bounded_moments_cpu(plan_, x_, dtype_, begin, end, &parts[begin]);
    });
    sized_for_.resize(plan_.rows);
    for (int64_t r = 0; r < plan_.rows; ++r) {
      const BoundedMoments moments =
          bounded_total(&parts[r * plan_.units_per_row], plan_.units_per_row);
      if (!bounded_is_finite(moments)) return Status::kNonFinite;
      searches_.push_back(
          bounded_row_begin(target_, moments, dtype_, plan_.cols, plan_.units_per_row));
    }
    while (look()) {
    }
    return finish();
  }

 private:
  // Measures once what is not done. False where nothing is left.
  bool look() {
    std::vector<int64_t> rows, units;
    for (int64_t r = 0; r < plan_.rows; ++r) {
      const BoundedRowSearch& s = searches_[r];
      if (s.done) continue;
      rows.push_back(r);
      step_[r] = s.search.step;
      if (s.stride == 1) sized_for_[r] = step_[r];
      for (int64_t u = 0; u < plan_.units_per_row; u += s.stride) {
        units.push_back(r * plan_.units_per_row + u);
      }
    }
    const std::vector<BoundedError> parts = measure(units);
    const BoundedError* part = parts.data();
    for (const int64_t r : rows) {
      BoundedRowSearch& s = searches_[r];
      const int64_t count = bounded_row_units(s, plan_.units_per_row);
      bounded_row_update(target_, bounded_total(part, count), dtype_, plan_.cols,
                         plan_.units_per_row, &s);
      part += count;
    }
    return !rows.empty();
  }

  // The errors of some units with the steps as they stand, and their bytes.
  std::vector<BoundedError> measure(const std::vector<int64_t>& units) {
    const auto count = static_cast<int64_t>(units.size());
    std::vector<BoundedError> parts(count);
    ops::parallel_units(count, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const bool whole = searches_[units[i] / plan_.units_per_row].stride == 1;
        bounded_measure_cpu(plan_, x_, dtype_, step_, units[i], units[i] + 1, &parts[i],
                            whole ? bytes_ : nullptr);
      }
    });
    return parts;
  }

  // Leaves the best steps, and the bytes that go with them.
  Status finish() {
    std::vector<int64_t> other;  // units of rows whose last look was not at their best step
    for (int64_t r = 0; r < plan_.rows; ++r) {
      const float best = searches_[r].search.best;
      if (best == 0) return Status::kBoundMissed;
      step_[r] = best;
      if (best == sized_for_[r]) continue;
      for (int64_t u = 0; u < plan_.units_per_row; ++u) {
        other.push_back(r * plan_.units_per_row + u);
      }
    }
    measure(other);
    return Status::kOk;
  }

  const BoundedPlan& plan_;
  const void* x_;
  DType dtype_;
  const BoundedTarget& target_;
  float* step_;
  int32_t* bytes_;
  std::vector<BoundedRowSearch> searches_;
  std::vector<float> sized_for_;  // the step that bytes_ of a row go with; 0: none
};

Status find_steps(const BoundedPlan& plan, const void* x, DType dtype, const BoundedTarget& target,
                  float* step, int32_t* bytes) {
  if (!plan.fused) return LongRowSearch(plan, x, dtype, target, step, bytes).run();
  return parallel_status(plan.unit_count, [&](int64_t begin, int64_t end) {
    return bounded_solve_cpu(plan, x, dtype, target, begin, end, step, bytes);
  });
}

// What is to be encoded, and what both forms of it are made from.
struct Source {
  const void* x;
  DType dtype;
  at::Tensor step;
  at::TensorOptions options;  // x's

  const float* steps() const { return step.const_data_ptr<float>(); }
};

void check_unchanged(Status status) {
  TORCH_CHECK(status == Status::kOk, "qvlmem::bounded: x was changed while it was being encoded");
}

// The steps as they are held.
at::Tensor shortest(const at::Tensor& step) {
  const float* steps = step.const_data_ptr<float>();
  const bool fit =
      std::all_of(steps, steps + step.numel(), [](float s) { return bounded_shorter(s) == s; });
  return fit && step.numel() > 1 ? step.to(at::kBFloat16) : step;
}

int64_t sum_of(const at::Tensor& bytes) {
  const int32_t* sizes = bytes.const_data_ptr<int32_t>();
  return std::accumulate(sizes, sizes + bytes.numel(), int64_t{0});
}

// Whether coding by entropy saves enough for its time, as some of the units of the packed form
// tell.
bool coding_pays(const BoundedPlan& plan, const Source& source, const at::Tensor& bytes) {
  if (plan.rows * plan.cols < kLeastCoded) return false;
  const int64_t samples = std::min(plan.unit_count, kSampleUnits);
  std::vector<int64_t> coded(samples);
  const auto unit_of = [&](int64_t sample) { return sample * plan.unit_count / samples; };
  check_unchanged(parallel_status(samples, [&](int64_t begin, int64_t end) {
    Status status = Status::kOk;
    for (int64_t s = begin; s < end && status == Status::kOk; ++s) {
      status =
          bounded_estimate_cpu(plan, source.x, source.dtype, source.steps(), unit_of(s), &coded[s]);
    }
    return status;
  }));
  int64_t coded_bytes = 0, packed_bytes = 0;
  for (int64_t s = 0; s < samples; ++s) {
    const int64_t packed = bytes.const_data_ptr<int32_t>()[unit_of(s)];
    coded_bytes += std::min(coded[s], packed);
    packed_bytes += packed;
  }
  return coded_bytes + packed_bytes / 50 < packed_bytes;
}

// bytes: of the units, measured.
Payload pack_units(const BoundedPlan& plan, const Source& source, int64_t param,
                   const at::Tensor& bytes) {
  const int64_t total = sum_of(bytes);
  std::vector<int64_t> offset(plan.unit_count + 1);
  ops::check_status(kOp, "bytes",
                    bounded_offsets(plan, bytes.const_data_ptr<int32_t>(), total, offset.data()));
  at::Tensor packed = ops::empty_output({total}, source.options.dtype(at::kByte));
  check_unchanged(parallel_status(plan.unit_count, [&](int64_t begin, int64_t end) {
    return bounded_encode_cpu(plan, source.x, source.dtype, source.steps(), offset.data(), begin,
                              end, packed.mutable_data_ptr<uint8_t>());
  }));
  return {{param}, {shortest(source.step), bytes, packed}};
}

Payload code_units(const BoundedPlan& plan, const Source& source, int64_t param) {
  at::Tensor bytes = at::empty({plan.unit_count}, source.options.dtype(at::kInt));
  int32_t* const sizes = bytes.mutable_data_ptr<int32_t>();
  int64_t bound = 0, widest = 0, total = 0;
  for (int64_t u = 0; u < plan.unit_count; ++u) {
    bound += bounded_unit_bound(plan, u);
    widest = std::max(widest, bounded_unit_bound(plan, u));
  }
  ops::ReservedBytes packed(bound);
  std::atomic<Status> answer{Status::kOk};
  ops::encode_in_order(
      plan.unit_count, 1, widest, packed.data(),
      [&](int64_t unit, bool, uint8_t* to) {
        int64_t size = 0;
        const Status status =
            bounded_code_cpu(plan, source.x, source.dtype, source.steps(), unit, to, &size);
        if (status != Status::kOk) answer.store(status, std::memory_order_relaxed);
        return status == Status::kOk ? size : 0;
      },
      [&](int64_t unit) {
        packed.expect(ops::expected_end(0, total, unit, plan.unit_count));
        return total;
      },
      [&](int64_t unit, int64_t end) {
        sizes[unit] = static_cast<int32_t>(end - total);
        total = end;
      },
      [](const uint8_t* from, int64_t size, uint8_t* to, int64_t) {
        std::memcpy(to, from, static_cast<size_t>(size));
      });
  check_unchanged(answer.load());
  return {{param | ops::kBoundedCoded}, {shortest(source.step), bytes, packed.take(total)}};
}

// The parts as the kernels take them. ValueError where the sizes of the units do not add up.
struct Encoded {
  Encoded(const Payload& payload, const TensorInfo& info)
      : plan(ops::bounded_plan(info.shape, payload.params[0])),
        step(payload.parts[0].to(at::kFloat).contiguous()),
        packed(payload.parts[2].contiguous()),
        offset(plan.unit_count + 1) {
    const at::Tensor bytes = payload.parts[1].contiguous();
    ops::check_status(
        kOp, "bytes",
        bounded_offsets(plan, bytes.const_data_ptr<int32_t>(), packed.numel(), offset.data()));
  }

  BoundedPlan plan;
  at::Tensor step, packed;
  std::vector<int64_t> offset;
};

}  // namespace

namespace ops {

BoundedPlan bounded_plan(at::IntArrayRef shape, int64_t param) {
  const int64_t numel = check_sizes(kOp, shape, 8);
  const MatrixShape matrix =
      param & kBoundedPerRow && numel > 0 ? matrix_shape(shape) : MatrixShape{numel > 0, numel};
  const BoundedForm form = param & kBoundedCoded ? BoundedForm::kCoded : BoundedForm::kPacked;
  BoundedPlan plan;
  check_status(kOp, "shape", make_bounded_plan(matrix.rows, matrix.cols, form, &plan));
  return plan;
}

BoundedCall prepare_bounded(const at::Tensor& x, const CompressOptions& options) {
  TORCH_CHECK_VALUE(options.max_error > 0.0,
                    "qvlmem::bounded: expected max_error to be above 0, got ", options.max_error,
                    " (method 'lossless' keeps every bit)");
  BoundedCall call;
  const bool per_row = options.bound == Bound::kRow;
  call.param = per_row ? kBoundedPerRow : 0;
  call.target = {options.bound == Bound::kElement ? BoundedNorm::kElement : BoundedNorm::kFrobenius,
                 options.max_error, per_row};
  call.plan = bounded_plan(x.sizes(), call.param);
  call.values = x.contiguous();
  call.step = at::full({call.plan.rows}, 1.0, x.options().dtype(at::kFloat));
  call.bytes = at::empty({call.plan.unit_count}, x.options().dtype(at::kInt));
  return call;
}

void check_bounded_found(Status found, const at::Tensor& x, const BoundedTarget& target) {
  if (found == Status::kNonFinite) throw_non_finite(kOp, x);
  TORCH_CHECK_VALUE(found != Status::kBoundMissed,
                    "qvlmem::bounded: expected max_error to be what ",
                    "float32 arithmetic can keep, got ", target.max_error,
                    " (method 'lossless' keeps every bit)");
  check_status(kOp, "x", found);
}

Payload encode_bounded_cpu(const at::Tensor& x, const CompressOptions& options) {
  const BoundedCall call = prepare_bounded(x, options);
  const Source source{call.values.const_data_ptr(), kernel_dtype(kOp, x.scalar_type()), call.step,
                      x.options()};
  const Status found =
      find_steps(call.plan, source.x, source.dtype, call.target,
                 source.step.mutable_data_ptr<float>(), call.bytes.mutable_data_ptr<int32_t>());
  check_bounded_found(found, x, call.target);
  if (options.prefer == Prefer::kSize && coding_pays(call.plan, source, call.bytes)) {
    Payload coded =
        code_units(bounded_plan(x.sizes(), call.param | kBoundedCoded), source, call.param);
    const size_t held = coded.parts[1].nbytes() + coded.parts[2].nbytes();
    if (held < call.bytes.nbytes() + static_cast<size_t>(sum_of(call.bytes))) return coded;
  }
  return pack_units(call.plan, source, call.param, call.bytes);
}

at::Tensor decode_bounded_cpu(const Payload& payload, const TensorInfo& info) {
  const Encoded e(payload, info);
  at::Tensor y = empty_output(info.shape, e.step.options().dtype(info.dtype));
  const DType dtype = kernel_dtype(kOp, info.dtype);
  const Status status = parallel_status(e.plan.unit_count, [&](int64_t begin, int64_t end) {
    return bounded_decode_cpu(e.plan, e.packed.const_data_ptr<uint8_t>(), e.offset.data(),
                              e.step.const_data_ptr<float>(), begin, end, y.mutable_data_ptr(),
                              dtype);
  });
  check_status(kOp, "packed", status);
  return y;
}

}  // namespace ops

namespace {

Payload encode_bounded(const at::Tensor& x, const CompressOptions& options) {
  return backend_of("compress", "x", x).encode_bounded(x, options);
}

at::Tensor decode_bounded(const Payload& payload, const TensorInfo& info) {
  return backend_of("decompress", "packed", payload.parts[2]).decode_bounded(payload, info);
}

void check_bounded(const Payload& payload, const TensorInfo& info) {
  check_payload_size(kOp, payload, 1, 3);
  const int64_t param = payload.params[0];
  TORCH_CHECK_VALUE(param >= 0 && param <= (ops::kBoundedPerRow | ops::kBoundedCoded),
                    "qvlmem::bounded: expected the param to be 0 to 3, got ", param);
  const BoundedPlan plan = ops::bounded_plan(info.shape, param);
  const at::Tensor &step = payload.parts[0], &bytes = payload.parts[1], &packed = payload.parts[2];
  if (step.scalar_type() != at::kBFloat16) ops::check_dtype(kOp, "step", step, at::kFloat);
  ops::check_shape(kOp, "step", step, {plan.rows});
  ops::check_dtype(kOp, "bytes", bytes, at::kInt);
  ops::check_shape(kOp, "bytes", bytes, {plan.unit_count});
  ops::check_dtype(kOp, "packed", packed, at::kByte);
  ops::check_shape(kOp, "packed", packed, {packed.numel()});
  const Encoded e(payload, info);
  const Status status = parallel_status(e.plan.unit_count, [&](int64_t begin, int64_t end) {
    return bounded_check_cpu(e.plan, e.packed.const_data_ptr<uint8_t>(), e.offset.data(),
                             e.step.const_data_ptr<float>(), begin, end);
  });
  ops::check_status(kOp, "packed", status);
}

ErrorMeasure measure_bounded(const at::Tensor& x, const Payload& payload, const TensorInfo& info) {
  const Encoded e(payload, info);
  const DType dtype = ops::kernel_dtype(kOp, info.dtype);
  const auto unit = [&](int64_t u) { return bounded_unit(e.plan, u); };
  return ops::measure_error_of_pieces(
      x, {unit(0).end, [&](int64_t i) { return bounded_unit_of(e.plan, i); },
          [&](int64_t u) { return unit(u).begin; }, [&](int64_t u) { return unit(u).end; },
          [&](int64_t u, void* to) {
            ops::check_status(
                kOp, "packed",
                bounded_decode_unit_cpu(e.plan, e.packed.const_data_ptr<uint8_t>(), e.offset.data(),
                                        e.step.const_data_ptr<float>(), u, to, dtype));
          }});
}

// A header for each block of 32 values, where all of them are alike. Without end where the bound
// might be missed: steps of max|x| / 2^29 are always possible, and then no error exceeds a step.
int64_t least_bytes_bounded(const at::Tensor& x, const CompressOptions& options, int64_t) {
  const int64_t n = options.bound == Bound::kTensor ? x.numel()
                    : options.bound == Bound::kRow  ? ops::matrix_shape(x.sizes()).cols
                                                    : 1;
  const double certain = std::sqrt(static_cast<double>(n)) * 0x1p-29;
  return options.max_error <= certain ? std::numeric_limits<int64_t>::max() : x.numel() / 32;
}

}  // namespace

const Codec kBoundedCodec{
    CodecId::kBounded,   kOp,     false,   false, encode_bounded, decode_bounded, check_bounded,
    least_bytes_bounded, nullptr, nullptr, true,  measure_bounded};

}  // namespace qvlmem
