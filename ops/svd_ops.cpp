// SPDX-License-Identifier: Apache-2.0
#include "ops/svd_ops.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "kernels/base/float_bits.h"
#include "kernels/svd/svd.h"
#include "kernels/svd/svd_math.h"
#include "ops/backend.h"
#include "ops/base/check.h"
#include "ops/base/output.h"
#include "ops/codec/codec.h"
#include "ops/codec/codec_table.h"
#include "ops/svd/fixed_order.h"
#include "ops/svd/low_rank.h"

namespace qvlmem::ops {
namespace {

// Of a matrix without energy: v's rows are the first unit vectors.
LowRank zero_factors(const at::Tensor& x, int64_t rank) {
  const MatrixShape shape = matrix_shape(x.sizes());
  return {at::zeros({shape.rows, rank}, x.options()), at::eye(rank, shape.cols, x.options())};
}

std::tuple<at::Tensor, at::Tensor> as_tuple(const LowRank& factors) {
  return {factors.u, factors.v};
}

void check_share(const char* argument, double value) {
  TORCH_CHECK_VALUE(value > 0.0 && value <= 1.0, "qvlmem::svd: expected ", argument,
                    " to be in (0, 1], got ", value);
}

void check_rank(int64_t rank, const MatrixShape& shape) {
  const int64_t largest = std::min(shape.rows, shape.cols);
  TORCH_CHECK_VALUE(rank >= std::min<int64_t>(1, largest) && rank <= largest,
                    "qvlmem::svd: expected rank to be from ", std::min<int64_t>(1, largest), " to ",
                    largest, " for a matrix of ", shape.rows, " by ", shape.cols, ", got ", rank);
}

void check_factor_dtypes(const char* op, const at::Tensor& u, const at::Tensor& v) {
  check_dense(op, "u", u);
  const at::ScalarType dtype = u.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
                   "qvlmem::", op, ": expected u to be float32, float16 or bfloat16, got ",
                   describe(u));
  check_dtype(op, "v", v, dtype);
}

std::unique_ptr<SvdDevice> svd_device_of(const at::Tensor& x) {
  return backend_of("svd", "x", x).svd_device(x);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> svd_within(const at::Tensor& x, double energy,
                                              int64_t most_bytes, int64_t seed) {
  check_lossy_input("svd", x);
  check_share("energy", energy);
  const MatrixShape shape = matrix_shape(x.sizes());
  if (x.numel() == 0) return as_tuple(zero_factors(x, 0));
  const auto device = svd_device_of(x);
  const int64_t max_rank = std::min(
      {shape.rows, shape.cols, most_bytes / ((shape.rows + shape.cols) * x.element_size())});
  const auto factors = factor_matrix<std::optional<LowRank>>(
      *device, x, energy_dtype(energy), [&] { return zero_factors(x, 1); },
      [&](SvdMatrix& matrix) {
        return factor_to_energy(*device, matrix, energy, max_rank, static_cast<uint64_t>(seed));
      });
  TORCH_CHECK_VALUE(factors, "qvlmem::svd: expected factors of at most ", most_bytes,
                    " bytes to keep ", energy, " of x's energy; they do not");
  return as_tuple(*factors);
}

std::tuple<at::Tensor, at::Tensor> svd(const at::Tensor& x, bool adaptive_rank,
                                       double compression_ratio, double energy,
                                       std::optional<int64_t> rank, int64_t seed) {
  check_lossy_input("svd", x);
  check_share("compression_ratio", compression_ratio);
  check_share("energy", energy);
  const MatrixShape shape = matrix_shape(x.sizes());
  if (rank) check_rank(*rank, shape);
  if (adaptive_rank && !rank) {
    return svd_within(x, energy, std::numeric_limits<int64_t>::max(), seed);
  }
  if (x.numel() == 0) return as_tuple(zero_factors(x, 0));
  const auto device = svd_device_of(x);
  const int64_t kept = rank ? *rank : svd_rank_of_ratio(shape.rows, shape.cols, compression_ratio);
  return as_tuple(factor_matrix<LowRank>(
      *device, x, at::kFloat, [&] { return zero_factors(x, rank.value_or(1)); },
      [&](SvdMatrix& matrix) {
        return factor_to_rank(*device, matrix, kept, static_cast<uint64_t>(seed));
      }));
}

void check_svd_factors(const char* op, const at::Tensor& u, const at::Tensor& v,
                       at::IntArrayRef shape) {
  check_sizes(op, shape, sizeof(float));
  check_factor_dtypes(op, u, v);
  const MatrixShape matrix = matrix_shape(shape);
  const int64_t rank = u.dim() == 2 ? u.size(1) : 0;
  check_shape(op, "u", u, {matrix.rows, rank});
  check_shape(op, "v", v, {rank, matrix.cols});
  TORCH_CHECK_VALUE(u.device() == v.device(), "qvlmem::", op,
                    ": expected u and v on one device, got ", u.device(), " and ", v.device());
}

ReconstructCall prepare_svd_reconstruct(const at::Tensor& u, const at::Tensor& v,
                                        at::IntArrayRef shape,
                                        std::optional<at::ScalarType> dtype) {
  check_svd_factors("svd_reconstruct", u, v, shape);
  return {u.detach().contiguous(), v.detach().contiguous(),
          empty_output(shape, u.options().dtype(output_dtype("svd_reconstruct", dtype)))};
}

at::Tensor svd_reconstruct_cpu(const at::Tensor& u, const at::Tensor& v, at::IntArrayRef shape,
                               std::optional<at::ScalarType> dtype) {
  const ReconstructCall call = prepare_svd_reconstruct(u, v, shape, dtype);
  if (call.y.numel() == 0) return call.y;
  FixedOrder device;
  const SvdScan u_scan = svd_scan_in_order(call.u), v_scan = svd_scan_in_order(call.v);
  const bool finite = svd_scan_is_finite(u_scan) && svd_scan_is_finite(v_scan);
  const bool fits = svd_product_fits(bits_to_float(u_scan.magnitude_bits),
                                     bits_to_float(v_scan.magnitude_bits), u.size(1));
  const at::ScalarType result = call.y.scalar_type();
  const at::ScalarType compute = finite && !fits ? at::kDouble : at::kFloat;
  at::Tensor matrix = call.y.view({call.u.size(0), call.v.size(1)});
  if (compute == result) {
    device.multiply(matrix, call.u.to(compute), call.v.to(compute));
  } else {
    const double limit = finite ? largest_value(result) : std::numeric_limits<double>::infinity();
    device.multiply_in_panels(matrix, call.u.to(compute), call.v.to(compute),
                              [&](at::Tensor& panel) { panel.clamp_(-limit, limit); });
  }
  return call.y;
}

at::Tensor svd_reconstruct_meta(const at::Tensor& u, const at::Tensor& v, c10::SymIntArrayRef shape,
                                std::optional<at::ScalarType> dtype) {
  check_factor_dtypes("svd_reconstruct", u, v);
  return at::empty_symint(shape, u.options().dtype(output_dtype("svd_reconstruct", dtype)));
}

int64_t svd_least_bytes(const at::Tensor& x, double energy) {
  const MatrixShape shape = matrix_shape(x.sizes());
  if (x.numel() == 0) return 0;
  if (std::max(shape.rows, shape.cols) > kMostRows) return std::numeric_limits<int64_t>::max();
  const auto device = svd_device_of(x);
  const auto rank = factor_matrix<int64_t>(
      *device, x, at::kFloat, [] { return 1; },
      [&](SvdMatrix& matrix) { return least_rank(*device, matrix, energy, 0); });
  return rank * (shape.rows + shape.cols) * x.element_size();
}

}  // namespace qvlmem::ops

namespace qvlmem {
namespace {

// params: none. parts: u, v.
Payload encode_svd_within(const at::Tensor& x, const CompressOptions& options, int64_t most_bytes) {
  auto [u, v] = options.adaptive_rank ? ops::svd_within(x, options.energy, most_bytes, 0)
                                      : ops::svd(x, false, options.compression_ratio,
                                                 options.energy, std::nullopt, 0);
  return {{}, {u, v}};
}

Payload encode_svd(const at::Tensor& x, const CompressOptions& options) {
  return encode_svd_within(x, options, std::numeric_limits<int64_t>::max());
}

at::Tensor decode_svd(const Payload& payload, const TensorInfo& info) {
  const at::Tensor &u = payload.parts[0], &v = payload.parts[1];
  return backend_of("decompress", "u", u).svd_reconstruct(u, v, info.shape, info.dtype);
}

void check_svd(const Payload& payload, const TensorInfo& info) {
  check_payload_size("svd", payload, 0, 2);
  ops::check_dtype("svd", "u", payload.parts[0], info.dtype);
  ops::check_svd_factors("svd", payload.parts[0], payload.parts[1], info.shape);
  const ops::MatrixShape shape = ops::matrix_shape(info.shape);
  const int64_t most = std::min(shape.rows, shape.cols), rank = payload.parts[0].size(1);
  TORCH_CHECK_VALUE(rank >= std::min<int64_t>(1, most) && rank <= most,
                    "qvlmem::svd: expected factors of rank ", std::min<int64_t>(1, most), " to ",
                    most, ", got ", rank);
}

int64_t least_bytes_svd(const at::Tensor& x, const CompressOptions& options, int64_t most_bytes) {
  if (x.numel() == 0) return 0;
  const ops::MatrixShape shape = ops::matrix_shape(x.sizes());
  const int64_t of_rank_1 = (shape.rows + shape.cols) * x.element_size();
  // Of thin matrices one singular triple takes too much already, and sampling them costs the most.
  if (!options.adaptive_rank || of_rank_1 > most_bytes) return of_rank_1;
  return ops::svd_least_bytes(x, options.energy);
}

}  // namespace

const Codec kSvdCodec{CodecId::kSvd, "svd",     false,           false,   encode_svd,
                      decode_svd,    check_svd, least_bytes_svd, nullptr, encode_svd_within};

}  // namespace qvlmem
