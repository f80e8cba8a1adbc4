// SPDX-License-Identifier: Apache-2.0
#include "tools/benchmarks/cuda_cases.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>

#include "kernels/base/float_bits.h"
#include "kernels/bounded/bounded_cuda.h"
#include "kernels/error/error_cuda.h"
#include "kernels/half/half_cuda.h"
#include "kernels/lossless/lossless_cuda.h"
#include "kernels/quantize/quantize_cuda.h"
#include "kernels/sparse/sparse_cuda.h"
#include "kernels/svd/svd_cuda.h"

namespace qvlmem::bench {
namespace {

constexpr int64_t kCols = 4096;

using Memory = std::shared_ptr<DeviceMemory>;

Memory memory(int64_t bytes) { return std::make_shared<DeviceMemory>(bytes); }

struct Input {
  int64_t rows;
  DType dtype;
  Memory data;
  int64_t elements() const { return rows * kCols; }
  double bytes() const { return static_cast<double>(elements()) * dtype_bytes(dtype); }
};

Input normal_values(int64_t rows, DType dtype) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const int64_t count = rows * kCols, size = dtype_bytes(dtype);
  std::vector<uint8_t> host(count * size);
  for (int64_t i = 0; i < count; ++i) {
    // Drawing takes longer than all the rest: the values repeat after a while.
    if (i >= 1 << 20) {
      std::memcpy(&host[i * size], &host[(i - (1 << 20)) * size], size);
      continue;
    }
    const float value = normal(random);
    const uint16_t bits = dtype == DType::kFloat16 ? to_half(value).bits : to_bfloat16(value).bits;
    std::memcpy(&host[i * size],
                dtype == DType::kFloat32 ? static_cast<const void*>(&value) : &bits, size);
  }
  const Memory device = memory(count * size);
  check(cudaMemcpy(device->data(), host.data(), host.size(), cudaMemcpyHostToDevice));
  return {rows, dtype, device};
}

void add_quantize(const Input& x, const std::string& type, std::vector<CudaCase>* cases) {
  for (int bits : {8, 4}) {
    for (int64_t group : {0, -1, 64, 128}) {
      QuantizePlan plan;
      if (make_quantize_plan(x.rows, kCols, bits, true, group, &plan) != Status::kOk) std::abort();
      const std::string name = std::to_string(bits) + " bits " +
                               (group == 0    ? "per tensor "
                                : group == -1 ? "per row "
                                              : "group " + std::to_string(group) + " ") +
                               type;
      const Memory q = memory(plan.rows * plan.row_bytes), scale = memory(plan.group_count * 4);
      const Memory flag = memory(4), y = memory(static_cast<int64_t>(x.bytes()));
      const Memory workspace = memory(quantize_workspace_bytes(plan, false));
      const double kept = static_cast<double>(plan.rows * plan.row_bytes + plan.group_count * 4);
      const int passes = quantize_workspace_bytes(plan, false) > 0 ? 2 : 1;
      cases->push_back({"quantize " + name, x.elements(), passes * x.bytes(), kept, [=] {
                          check(quantize_cuda(plan, x.data->data(), x.dtype, nullptr, q->data(),
                                              scale->as<float>(), nullptr, flag->as<int32_t>(),
                                              workspace->data(), nullptr));
                        }});
      cases->push_back({"dequantize " + name, x.elements(), kept, x.bytes(), [=] {
                          check(dequantize_cuda(plan, q->data(), scale->as<float>(), nullptr,
                                                y->data(), x.dtype, nullptr));
                        }});
    }
  }
}

void add_half(const Input& x, const std::string& type, std::vector<CudaCase>* cases) {
  HalfPlan plan;
  if (make_half_plan(x.elements(), x.dtype, &plan) != Status::kOk) std::abort();
  const Memory half = memory(x.elements() * 2), scale = memory(8);
  const Memory y = memory(static_cast<int64_t>(x.bytes()));
  const Memory workspace = memory(kHalfWorkspaceBytes);
  const double kept = static_cast<double>(x.elements() * 2);
  cases->push_back({"to_fp16 " + type, x.elements(), x.bytes(), kept, [=] {
                      check(half_encode_cuda(plan, x.data->data(), half->data(), scale->data(),
                                             workspace->data(), nullptr));
                    }});
  cases->push_back({"from_fp16 " + type, x.elements(), kept, x.bytes(), [=] {
                      check(half_decode_cuda(plan, half->data(), scale->data(),
                                             half_scale_dtype(x.dtype), y->data(), nullptr));
                    }});
}

void add_error(const Input& x, const std::string& type, std::vector<CudaCase>* cases) {
  for (int64_t cols : {kCols, int64_t{128}, int64_t{4}}) {
    ErrorPlan plan;
    if (make_error_plan(x.elements() / cols, cols, x.dtype, &plan) != Status::kOk) std::abort();
    const Memory y = memory(static_cast<int64_t>(x.bytes()));
    check(cudaMemset(y->data(), 0, static_cast<size_t>(x.bytes())));
    const int64_t kept = plan.unit_count * static_cast<int64_t>(sizeof(ErrorPartial));
    const Memory partials = memory(kept);
    cases->push_back({"error rows of " + std::to_string(cols) + " " + type, x.elements(),
                      2 * x.bytes(), static_cast<double>(kept), [=] {
                        check(measure_error_cuda(plan, x.data->data(), y->data(),
                                                 partials->as<ErrorPartial>(), nullptr));
                      }});
  }
}

// Finding, storing and expanding, as COO and as the form that the codec takes for so many elements.
void add_sparse(const Input& x, const std::string& type, std::vector<CudaCase>* cases) {
  SparsePlan plan;
  if (make_sparse_plan(x.elements(), x.dtype, &plan) != Status::kOk) std::abort();
  for (double threshold : {0.5, 0.95}) {
    const int64_t target = sparse_zero_target(threshold, plan.numel);
    const std::string name = std::to_string(static_cast<int>(threshold * 100)) + "% zeros " + type;
    const Memory workspace = memory(sparse_workspace_bytes(plan)), found = memory(16);
    const auto find = [=] {
      check(sparse_find_cuda(plan, x.data->data(), true, target, found->as<SparseFound>(),
                             workspace->data(), nullptr));
    };
    find();
    SparseFound host;
    check(cudaMemcpy(&host, found->data(), sizeof(host), cudaMemcpyDeviceToHost));
    const double values = static_cast<double>(host.nnz * plan.element_bytes);
    const double coo = values + static_cast<double>(host.nnz * 4);
    // With the sample's help float32 takes two passes of the search, then there is one that counts.
    const int passes = plan.element_bytes == 4 ? 3 : 2;
    cases->push_back({"sparse find " + name, x.elements(), passes * x.bytes(), 0, find});
    const Memory indices = memory(host.nnz * 4), kept = memory(static_cast<int64_t>(values));
    const Memory y = memory(static_cast<int64_t>(x.bytes())), flag = memory(4);
    const auto store = [=] {
      check(sparse_store_cuda(plan, x.data->data(), workspace->data(), indices->data(),
                              kept->data(), nullptr));
    };
    store();
    cases->push_back({"sparse store " + name, x.elements(), x.bytes(), coo, store});
    cases->push_back({"densify " + name, x.elements(), coo, x.bytes(), [=] {
                        check(sparse_densify_cuda(plan, indices->as<int32_t>(), kept->data(),
                                                  host.nnz, y->data(), flag->as<int32_t>(),
                                                  nullptr));
                      }});
    SparsePlan compact = plan;
    const SparseForm form = sparse_smallest_form(plan, host.nnz);
    if (set_sparse_layout(host.nnz, form, &compact) != Status::kOk) std::abort();
    const Memory index = memory(compact.index_bytes);
    const Memory offsets = memory(sparse_decode_workspace_bytes(plan));
    const double parts = values + static_cast<double>(compact.index_bytes);
    const auto encode = [=] {
      check(sparse_encode_cuda(compact, x.data->data(), workspace->data(), index->data(),
                               kept->data(), nullptr));
    };
    encode();
    cases->push_back({"sparse encode " + name, x.elements(), x.bytes(), parts, encode});
    cases->push_back({"sparse decode " + name, x.elements(), parts, x.bytes(), [=] {
                        check(sparse_decode_cuda(compact, index->data(), kept->data(), y->data(),
                                                 flag->as<int32_t>(), offsets->data(), nullptr));
                      }});
  }
}

void add_svd(const Input& x, const std::string& type, std::vector<CudaCase>* cases) {
  const Memory workspace = memory(svd_scan_workspace_bytes(x.elements()));
  const Memory scan = memory(sizeof(SvdScan)), signs = memory(x.elements() * 4);
  cases->push_back({"svd scan " + type, x.elements(), x.bytes(), 0, [=] {
                      check(svd_scan_cuda(x.data->data(), x.dtype, x.elements(),
                                          scan->as<SvdScan>(), workspace->data(), nullptr));
                    }});
  if (x.dtype != DType::kFloat32) return;
  cases->push_back({"svd random signs", x.elements(), 0, x.bytes(), [=] {
                      check(svd_random_signs_cuda(1, 2, x.elements(), signs->as<float>(), nullptr));
                    }});
}

template <class T>
T on_host(const DeviceMemory& memory) {
  T value;
  check(cudaMemcpy(&value, memory.data(), sizeof(T), cudaMemcpyDeviceToHost));
  return value;
}

void add_lossless(const Input& x, const std::string& type, std::vector<CudaCase>* cases) {
  LosslessPlan plan;
  if (make_lossless_plan(x.elements(), x.dtype, &plan) != Status::kOk) std::abort();
  const Memory workspace = memory(lossless_encode_workspace_bytes(plan)), size = memory(8);
  const Memory opened = memory(lossless_decode_workspace_bytes(plan)), refused = memory(4);
  const Memory bytes = memory(plan.bound_bytes), y = memory(static_cast<int64_t>(x.bytes()));
  const auto encode = [=] {
    check(lossless_measure_cuda(plan, x.data->data(), size->as<int64_t>(), workspace->data(),
                                nullptr));
    check(lossless_encode_cuda(plan, x.data->data(), bytes->as<uint8_t>(), workspace->data(),
                               nullptr));
  };
  encode();
  const int64_t kept = on_host<int64_t>(*size);
  cases->push_back({"lossless 1 encode " + type, x.elements(), 2 * x.bytes(),
                    static_cast<double>(kept), encode});
  cases->push_back(
      {"lossless 1 decode " + type, x.elements(), static_cast<double>(kept), x.bytes(), [=] {
         check(lossless_decode_cuda(plan, bytes->as<uint8_t>(), kept, y->data(),
                                    refused->as<int32_t>(), opened->data(), nullptr));
       }});
}

void add_bounded(const Input& x, const std::string& type, std::vector<CudaCase>* cases) {
  for (bool per_row : {false, true}) {
    BoundedPlan plan;
    if (make_bounded_plan(per_row ? x.rows : 1, per_row ? kCols : x.elements(),
                          BoundedForm::kPacked, &plan) != Status::kOk) {
      std::abort();
    }
    const BoundedTarget target{BoundedNorm::kFrobenius, 0.01, per_row};
    const Memory workspace = memory(bounded_encode_workspace_bytes(plan));
    const Memory opened = memory(bounded_decode_workspace_bytes(plan)), refused = memory(4);
    const Memory step = memory(plan.rows * 4), bytes = memory(plan.unit_count * 4);
    const Memory found = memory(sizeof(BoundedFound)), packed = memory(5 * x.elements());
    const Memory y = memory(static_cast<int64_t>(x.bytes()));
    const auto encode = [=] {
      check(bounded_find_cuda(plan, x.data->data(), x.dtype, target, {true, bounded_looks(plan)},
                              step->as<float>(), bytes->as<int32_t>(), found->as<BoundedFound>(),
                              workspace->data(), nullptr));
      check(bounded_encode_cuda(plan, x.data->data(), x.dtype, step->as<float>(),
                                packed->as<uint8_t>(), workspace->data(), nullptr));
    };
    encode();
    const int64_t kept = on_host<BoundedFound>(*found).total_bytes;
    const std::string name = std::string(per_row ? "per row " : "per tensor ") + type;
    // For moments, one look at the error, sizes and packing; more looks at a row find it in L2.
    cases->push_back({"bounded 1% encode " + name, x.elements(), 4 * x.bytes(),
                      static_cast<double>(kept), encode});
    cases->push_back(
        {"bounded 1% decode " + name, x.elements(), static_cast<double>(kept), x.bytes(), [=] {
           check(bounded_decode_cuda(plan, packed->as<uint8_t>(), kept, bytes->as<int32_t>(),
                                     step->as<float>(), y->data(), x.dtype, refused->as<int32_t>(),
                                     opened->data(), nullptr));
         }});
  }
}

}  // namespace

std::vector<CudaCase> cuda_cases(int64_t elements) {
  const int64_t rows = std::max<int64_t>(elements / kCols, 1);
  std::vector<CudaCase> cases;
  for (auto [dtype, type] :
       {std::pair<DType, const char*>{DType::kFloat32, "fp32"}, {DType::kBFloat16, "bf16"}}) {
    const Input x = normal_values(rows, dtype);
    add_quantize(x, type, &cases);
    add_half(x, type, &cases);
    add_lossless(x, type, &cases);
    add_bounded(x, type, &cases);
    add_error(x, type, &cases);
    add_sparse(x, type, &cases);
    add_svd(x, type, &cases);
  }
  return cases;
}

}  // namespace qvlmem::bench
