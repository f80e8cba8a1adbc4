// SPDX-License-Identifier: Apache-2.0
// The codec `bounded`: kernels/bounded/bounded.h over tensors. It has no operator of its own.
//
// params: one, of two bits: kPerRow where there is a step for each row, else there is one for the
// tensor; kCoded where the units are those of the coded form.
// parts: step (one each; bfloat16 where that holds those of rows exactly, else float32), bytes
// (int32, of each unit), packed (uint8, the units).
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/bounded/bounded.h"
#include "ops/base/check.h"
#include "ops/base/ordered_units.h"
#include "ops/base/output.h"
#include "ops/base/parallel.h"
#include "ops/base/reserved_bytes.h"
#include "ops/codec/codec.h"
#include "ops/codec/codec_table.h"

namespace qvlmem {
namespace {

constexpr const char* kOp = "bounded";
// Units that a thread takes at least: 32 Ki values, below which waking a thread costs more.
constexpr int64_t kGrain = 4;
// A row of this many units is first searched on as many samples: a step that is nearly right needs
// one look at all of it.
constexpr int64_t kSampleUnits = 16;
// Below this many values a code's table costs more time than what it saves is worth.
constexpr int64_t kLeastCoded = 2048;

constexpr int64_t kPerRow = 1, kCoded = 2;  // bits of the param

BoundedPlan make_plan(at::IntArrayRef shape, int64_t param) {
  const int64_t numel = ops::check_sizes(kOp, shape, 8);
  const ops::MatrixShape matrix =
      param & kPerRow && numel > 0 ? ops::matrix_shape(shape) : ops::MatrixShape{numel > 0, numel};
  const BoundedForm form = param & kCoded ? BoundedForm::kCoded : BoundedForm::kPacked;
  BoundedPlan plan;
  ops::check_status(kOp, "shape", make_bounded_plan(matrix.rows, matrix.cols, form, &plan));
  return plan;
}

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

// The search for the steps of rows that are longer than a unit, all rows side by side. Sums are
// merged in the order of units, so that the steps do not depend on the threads.
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
    moments_.resize(plan_.rows);
    sized_for_.resize(plan_.rows);
    for (int64_t u = 0; u < plan_.unit_count; ++u) {
      bounded_add(parts[u], &moments_[bounded_unit(plan_, u).row_begin]);
    }
    for (const BoundedMoments& m : moments_) {
      if (!bounded_is_finite(m)) return Status::kNonFinite;
    }
    std::vector<float> start(plan_.rows, 0.0f);
    if (plan_.units_per_row >= 2 * kSampleUnits) {
      start = search(start, plan_.units_per_row / kSampleUnits);
    }
    const std::vector<float> best = search(start, 1);
    return finish(best);
  }

 private:
  // The best step of each row as every stride-th of its units tells, beginning with the step
  // `start` where that is not 0. 0 where none holds.
  std::vector<float> search(const std::vector<float>& start, int64_t stride) {
    const int64_t units = (plan_.units_per_row + stride - 1) / stride;
    const double share = static_cast<double>(units) / static_cast<double>(plan_.units_per_row);
    std::vector<BoundedMoments> moments(moments_);
    std::vector<BoundedSearch> searches;
    for (int64_t r = 0; r < plan_.rows; ++r) {
      moments[r].sum_squares *= share;
      searches.push_back(bounded_search(target_, moments[r],
                                        static_cast<int64_t>(share * plan_.cols) + 1, dtype_));
      if (start[r] > 0 && start[r] != searches[r].step) {
        searches[r].step = start[r];
        searches[r].fallback = 0;
      }
    }
    std::vector<int64_t> open;
    while (true) {
      open.clear();
      for (int64_t r = 0; r < plan_.rows; ++r) {
        if (searches[r].done) continue;
        open.push_back(r);
        step_[r] = searches[r].step;
      }
      if (open.empty()) break;
      const std::vector<BoundedError> errors = measure(open, units, stride);
      for (size_t i = 0; i < open.size(); ++i) {
        BoundedSearch& s = searches[open[i]];
        bounded_search_update(bounded_excess(target_, moments[open[i]], errors[i]), &s);
      }
    }
    std::vector<float> best;
    for (const BoundedSearch& s : searches) best.push_back(s.best);
    return best;
  }

  // The errors of some rows with the steps as they stand; the bytes of the units looked at.
  std::vector<BoundedError> measure(const std::vector<int64_t>& rows, int64_t units,
                                    int64_t stride) {
    const int64_t count = static_cast<int64_t>(rows.size()) * units;
    std::vector<BoundedError> parts(count), sums(rows.size());
    ops::parallel_units(count, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t unit = rows[i / units] * plan_.units_per_row + i % units * stride;
        bounded_measure_cpu(plan_, x_, dtype_, step_, unit, unit + 1, &parts[i],
                            stride == 1 ? bytes_ : nullptr);
      }
    });
    if (stride == 1) {
      for (const int64_t r : rows) sized_for_[r] = step_[r];
    }
    for (int64_t i = 0; i < count; ++i) bounded_add(parts[i], &sums[i / units]);
    return sums;
  }

  // Leaves the best steps, and the bytes that go with them.
  Status finish(const std::vector<float>& best) {
    std::vector<int64_t> other;  // rows whose last full look was not at their best step
    for (int64_t r = 0; r < plan_.rows; ++r) {
      if (best[r] == 0) return Status::kBoundMissed;
      if (best[r] != sized_for_[r]) other.push_back(r);
      step_[r] = best[r];
    }
    measure(other, plan_.units_per_row, 1);
    return Status::kOk;
  }

  const BoundedPlan& plan_;
  const void* x_;
  DType dtype_;
  const BoundedTarget& target_;
  float* step_;
  int32_t* bytes_;
  std::vector<BoundedMoments> moments_;
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
  at::Tensor packed = at::empty({total}, source.options.dtype(at::kByte));
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
      [&](int64_t) { return total; },
      [&](int64_t unit, int64_t end) {
        sizes[unit] = static_cast<int32_t>(end - total);
        total = end;
      });
  check_unchanged(answer.load());
  return {{param | kCoded}, {shortest(source.step), bytes, packed.take(total)}};
}

Payload encode_bounded(const at::Tensor& x, const CompressOptions& options) {
  TORCH_CHECK_VALUE(options.max_error > 0.0,
                    "qvlmem::bounded: expected max_error to be above 0, got ", options.max_error,
                    " (method 'lossless' keeps every bit)");
  const int64_t param = options.bound == Bound::kRow ? kPerRow : 0;
  const BoundedTarget target{
      options.bound == Bound::kElement ? BoundedNorm::kElement : BoundedNorm::kFrobenius,
      options.max_error, options.bound == Bound::kRow};
  const BoundedPlan plan = make_plan(x.sizes(), param);
  const at::Tensor values = x.contiguous();
  const Source source{values.const_data_ptr(), ops::kernel_dtype(kOp, x.scalar_type()),
                      at::full({plan.rows}, 1.0, x.options().dtype(at::kFloat)), x.options()};
  at::Tensor bytes = at::empty({plan.unit_count}, x.options().dtype(at::kInt));
  const Status found =
      find_steps(plan, source.x, source.dtype, target, source.step.mutable_data_ptr<float>(),
                 bytes.mutable_data_ptr<int32_t>());
  if (found == Status::kNonFinite) ops::throw_non_finite(kOp, x);
  TORCH_CHECK_VALUE(found != Status::kBoundMissed,
                    "qvlmem::bounded: expected max_error to be what ",
                    "float32 arithmetic can keep, got ", options.max_error,
                    " (method 'lossless' keeps every bit)");
  ops::check_status(kOp, "x", found);
  if (options.prefer == Prefer::kSize && coding_pays(plan, source, bytes)) {
    Payload coded = code_units(make_plan(x.sizes(), param | kCoded), source, param);
    const size_t held = coded.parts[1].nbytes() + coded.parts[2].nbytes();
    if (held < bytes.nbytes() + static_cast<size_t>(sum_of(bytes))) return coded;
  }
  return pack_units(plan, source, param, bytes);
}

// The parts as the kernels take them. ValueError where the sizes of the units do not add up.
struct Encoded {
  Encoded(const Payload& payload, const TensorInfo& info)
      : plan(make_plan(info.shape, payload.params[0])),
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

at::Tensor decode_bounded(const Payload& payload, const TensorInfo& info) {
  const Encoded e(payload, info);
  at::Tensor y = ops::empty_output(info.shape, e.step.options().dtype(info.dtype));
  const DType dtype = ops::kernel_dtype(kOp, info.dtype);
  const Status status = parallel_status(e.plan.unit_count, [&](int64_t begin, int64_t end) {
    return bounded_decode_cpu(e.plan, e.packed.const_data_ptr<uint8_t>(), e.offset.data(),
                              e.step.const_data_ptr<float>(), begin, end, y.mutable_data_ptr(),
                              dtype);
  });
  ops::check_status(kOp, "packed", status);
  return y;
}

void check_bounded(const Payload& payload, const TensorInfo& info) {
  check_payload_size(kOp, payload, 1, 3);
  const int64_t param = payload.params[0];
  TORCH_CHECK_VALUE(param >= 0 && param <= (kPerRow | kCoded),
                    "qvlmem::bounded: expected the param to be 0 to 3, got ", param);
  const BoundedPlan plan = make_plan(info.shape, param);
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

// A header for each block of 32 values, where all of them are alike. Without end where the bound
// might be missed: steps of max|x| / 2^29 are always possible, and then no error exceeds a step.
int64_t least_bytes_bounded(const at::Tensor& x, const CompressOptions& options) {
  const int64_t n = options.bound == Bound::kTensor ? x.numel()
                    : options.bound == Bound::kRow  ? ops::matrix_shape(x.sizes()).cols
                                                    : 1;
  const double certain = std::sqrt(static_cast<double>(n)) * 0x1p-29;
  return options.max_error <= certain ? std::numeric_limits<int64_t>::max() : x.numel() / 32;
}

}  // namespace

const Codec kBoundedCodec{
    CodecId::kBounded,  kOp, false, false, encode_bounded, decode_bounded, check_bounded,
    least_bytes_bounded};

}  // namespace qvlmem
