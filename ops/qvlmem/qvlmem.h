// SPDX-License-Identifier: Apache-2.0
// libqvlmem for C++ programs: the operators of torch.ops.qvlmem as functions. A program links
// qvlmem::qvlmem (find_package(qvlmem)) and includes this header; linking loads the library, which
// registers the operators and classes for TorchScript as well.
//
// Errors are c10::ValueError, c10::TypeError or c10::NotImplementedError, with the operator, the
// argument, what was expected and what came. Where nothing else is said a function takes tensors on
// any device that the library has kernels for, of any shape and strides.
#pragma once

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>
#include <qvlmem/api.h>
#include <qvlmem/compressed_tensor.h>
#include <qvlmem/version.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace qvlmem {

// Over what an error is at most max_error: see CompressionError.
enum class Bound { kTensor, kRow, kElement };

// What auto is to choose by, among what meets the bound. kSize: the fewest bytes, whatever finding
// and coding them takes. kBalanced: the fewest bytes that a codec makes which runs at memory speed:
// no svd, no entropy coding. kSpeed: the first of those, in the order of what decoding costs, that
// makes fewer bytes than x has; the others are not tried.
enum class Prefer { kSize, kBalanced, kSpeed };

struct CompressOptions {
  // For auto and bounded; 0 is bit-exact.
  double max_error = 0.01;
  Bound bound = Bound::kTensor;
  // For auto, and for lossless and bounded: entropy-coded with kSize (bounded where that pays),
  // else bit-packed. The operator takes what the process's configuration says.
  Prefer prefer = Prefer::kSize;
  // For int8 and int4: as for quantize.
  bool symmetric = true;
  int64_t group_size = 128;
  // For svd: the rank by kept energy, or else by size.
  bool adaptive_rank = true;
  double compression_ratio = 0.5;
  double energy = 0.99;
  // For sparse: the share of zeros that pruning reaches.
  double sparsity_threshold = 0.5;
};

// x in compressed form. method: none, int8, int4, fp16, bounded, svd, sparse or lossless; or auto,
// the codec that options.prefer asks for (by default the one whose result holds the fewest bytes)
// among those whose measured error, as options.bound counts it, is at most options.max_error. NaN,
// infinities and dtypes that the lossy codecs do not take are only ever kept bit-exactly by auto. x
// is taken by its value, detached.
QVLMEM_API CompressedTensorPtr compress(const at::Tensor& x, const std::string& method = "auto",
                                        const CompressOptions& options = {});

// The tensor in c: contiguous, of the original's shape, dtype and device.
QVLMEM_API at::Tensor decompress(const CompressedTensorPtr& c);

// c as one flat uint8 CPU tensor with a checksum over all (format: docs/format.md). And back, onto
// the CPU where no device is named: ValueError, which says why, for anything that is damaged, cut
// short, from a newer version, or has bytes after its end.
QVLMEM_API at::Tensor pack(const CompressedTensorPtr& c);
QVLMEM_API CompressedTensorPtr unpack(const at::Tensor& frame,
                                      std::optional<at::Device> device = std::nullopt);
// decompress(unpack(frame)) of each, several at a time, and read where the frames lie.
QVLMEM_API std::vector<at::Tensor> decompress_frames(at::TensorList frames);

// Lays "key:value,key:value" over the configuration of the process: what conf does not name stays,
// and an empty conf changes nothing. ValueError for an unknown key or a bad value; then nothing
// changes.
QVLMEM_API void configure(const std::string& conf);

// What all managers, caches and pools of the process have counted: tensors_compressed, cpu_bytes,
// hits and so on.
QVLMEM_API c10::Dict<std::string, double> memory_stats();

// q, scale and zero_point (empty where symmetric), with x ~ (q - zero_point) * scale. bits: 8 (q is
// int8 in x's shape) or 4 (uint8, two values a byte along the last dimension). group_size: 0 one
// scale for the tensor, -1 one a row, n > 0 one for each run of n along the last dimension. With
// rounding_seed, stochastic rounding. x: float32, float16 or bfloat16, finite.
QVLMEM_API std::tuple<at::Tensor, at::Tensor, at::Tensor> quantize(
    const at::Tensor& x, int64_t bits = 8, bool symmetric = true, int64_t group_size = 0,
    std::optional<int64_t> rounding_seed = std::nullopt);

// The inverse, of `shape` and `dtype` (float32 where none is given), with the bits and group_size
// that quantize was given.
QVLMEM_API at::Tensor dequantize(const at::Tensor& q, const at::Tensor& scale,
                                 const at::Tensor& zero_point, at::IntArrayRef shape,
                                 int64_t bits = 8, int64_t group_size = 0,
                                 std::optional<at::ScalarType> dtype = std::nullopt);

// half, of x's shape, and a power of two, scale (one element, float64 for float64 x, else float32),
// with x ~ half * scale. x: float32, float16, bfloat16 or float64; NaN and infinities stay.
QVLMEM_API std::tuple<at::Tensor, at::Tensor> to_fp16(const at::Tensor& x);

// The inverse, in a dtype that to_fp16 takes (float32 where none is given).
QVLMEM_API at::Tensor from_fp16(const at::Tensor& half, const at::Tensor& scale,
                                std::optional<at::ScalarType> dtype = std::nullopt);

// u [m, r], which carries the singular values, and v [r, n] with orthonormal rows, with x ~ u v as
// a matrix of all but the last dimension by the last. r: rank where given; else the smallest that
// keeps `energy` of the sum of squared singular values (adaptive_rank), or the largest at which
// both take at most compression_ratio of x's bytes. x: float32, float16 or bfloat16, finite; u and
// v of its dtype. The same for a seed.
QVLMEM_API std::tuple<at::Tensor, at::Tensor> svd(const at::Tensor& x, bool adaptive_rank = true,
                                                  double compression_ratio = 0.5,
                                                  double energy = 0.99,
                                                  std::optional<int64_t> rank = std::nullopt,
                                                  int64_t seed = 0);

// u v, of `shape` and `dtype` (float32 where none is given).
QVLMEM_API at::Tensor svd_reconstruct(const at::Tensor& u, const at::Tensor& v,
                                      at::IntArrayRef shape,
                                      std::optional<at::ScalarType> dtype = std::nullopt);

// x bit for bit as a flat uint8 tensor, for every dtype that is not quantized. level: 1 bit-packed
// at memory speed, 2 entropy-coded.
QVLMEM_API at::Tensor lossless_encode(const at::Tensor& x, int64_t level = 1);

// The inverse, of the shape and dtype that were encoded, at either level. ValueError for bytes that
// are damaged or stand for something else.
QVLMEM_API at::Tensor lossless_decode(const at::Tensor& bytes, at::IntArrayRef shape,
                                      at::ScalarType dtype);

// indices (int32, int64 above 2^31 elements; sorted positions in the flattened x) and values of
// what is not zero. With prune, where fewer than sparsity_threshold of the elements are zero, the
// smallest by magnitude are dropped until so many are. x: float32, float16 or bfloat16.
QVLMEM_API std::tuple<at::Tensor, at::Tensor> sparsify(const at::Tensor& x,
                                                       double sparsity_threshold = 0.5,
                                                       bool prune = true);

// The inverse: zeros but for the values, in the values' dtype.
QVLMEM_API at::Tensor densify(const at::Tensor& indices, const at::Tensor& values,
                              at::IntArrayRef shape);

// float64 [10], from a fixed sample of x (float32, float16 or bfloat16): numel, sparsity, mean,
// variance, absmax, outlier_ratio, row_absmax_spread, entropy_bits, stable_rank, low_rank_energy.
QVLMEM_API at::Tensor profile_values(const at::Tensor& x);
// The same by these names.
QVLMEM_API c10::Dict<std::string, double> profile(const at::Tensor& x);

}  // namespace qvlmem
