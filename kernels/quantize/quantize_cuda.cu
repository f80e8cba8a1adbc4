// SPDX-License-Identifier: Apache-2.0
// Encoding. Groups that a team of threads holds in registers are read once (5 bytes moved an fp32
// element at 8 bits); longer ones, and what a team cannot do alone (bytes that straddle groups,
// stochastic rounding), are read twice: ranges by atomics, then scales, then codes.
#include "kernels/quantize/quantize_device.cuh"

namespace qvlmem {
namespace {

// Values that a thread holds, at most.
constexpr int kHeld = 32;
// Values that a warp ranges before it goes to memory with what it found.
constexpr int64_t kPiece = 8192;

// The range of a group as numbers that grow with it, all zero at first: bits of its maximum, of its
// minimum without the sign, of its largest magnitude.
struct RangeBits {
  uint32_t high, low, magnitude;
};

__device__ inline void widen(float value, bool symmetric, RangeBits* range) {
  const uint32_t bits = float_to_bits(value);
  range->magnitude = max(range->magnitude, bits & 0x7fffffffu);
  if (symmetric) return;
  range->high = max(range->high, bits >> 31 ? 0u : bits);
  range->low = max(range->low, bits >> 31 ? bits & 0x7fffffffu : 0u);
}

__device__ inline QuantizeRange to_range(const RangeBits& bits) {
  return {-bits_to_float(bits.low), bits_to_float(bits.high), bits.magnitude};
}

// The group's parameters; where a value is not finite, scale NaN and the flag.
template <class Bits>
__device__ inline QuantizeGroup finish_group(const RangeBits& range, Bits bits, bool symmetric,
                                             bool tell, int32_t* non_finite) {
  QuantizeGroup group = quantize_group(to_range(range), bits, symmetric);
  if (!range_is_finite(to_range(range))) {
    group.scale = bits_to_float(0x7fc00000u);
    if (tell) *non_finite = 1;
  }
  return group;
}

struct GroupShape {
  int64_t group_count, cols, group, row_bytes;
  Divisor groups_per_row;
  bool symmetric, vectors;
};

template <int kTeam>
__device__ inline RangeBits team_range(RangeBits range, bool symmetric) {
  constexpr int kLanes = kTeam < kWarpLanes ? kTeam : kWarpLanes;
  range.magnitude = team_max<kLanes>(range.magnitude);
  if (!symmetric) {
    range.high = team_max<kLanes>(range.high);
    range.low = team_max<kLanes>(range.low);
  }
  if constexpr (kTeam == kBlockThreads) {
    constexpr int kWarps = kBlockThreads / kWarpLanes;
    __shared__ RangeBits of_warp[kWarps];
    if (threadIdx.x % kWarpLanes == 0) of_warp[threadIdx.x / kWarpLanes] = range;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      range.magnitude = max(range.magnitude, of_warp[w].magnitude);
      range.high = max(range.high, of_warp[w].high);
      range.low = max(range.low, of_warp[w].low);
    }
  }
  return range;
}

// A team of kTeam threads ranges and encodes a group of at most kTeam * kItems values.
template <class T, int kBits, int kTeam, int kItems>
__global__ void __launch_bounds__(kBlockThreads)
    quantize_groups(GroupShape shape, const T* x, uint8_t* q, float* scale, int32_t* zero_point,
                    int32_t* non_finite) {
  constexpr int V = kVector<T>;
  const int lane = static_cast<int>(threadIdx.x) % kTeam;
  const int64_t g = static_cast<int64_t>(blockIdx.x) * (kBlockThreads / kTeam) +
                    static_cast<int>(threadIdx.x) / kTeam;
  // Teams without a group stay for the shuffles of their warp.
  const bool live = g < shape.group_count;
  int64_t in_row = live ? g : 0;
  const int64_t row = shape.groups_per_row.split(&in_row);
  const int64_t col = in_row * shape.group;
  const int n = live ? static_cast<int>(min(shape.group, shape.cols - col)) : 0;
  const T* values = x + row * shape.cols + col;

  float held[kItems];
  RangeBits range{0, 0, 0};
#pragma unroll
  for (int i = 0; i < kItems; i += V) {
    const int first = i * kTeam + lane * V;
    load_vector(values + first, n - first, shape.vectors, held + i);
#pragma unroll
    for (int k = 0; k < V; ++k) widen(held[i + k], shape.symmetric, &range);
  }
  range = team_range<kTeam>(range, shape.symmetric);
  const QuantizeGroup group =
      finish_group(range, kBits, shape.symmetric, live && lane == 0, non_finite);
  if (!live) return;
  if (lane == 0) {
    scale[g] = group.scale;
    if (!shape.symmetric) zero_point[g] = group.zero_point;
  }
  const int32_t low = quantize_low(kBits, shape.symmetric);
  const int32_t high = quantize_high(kBits, shape.symmetric);
  uint8_t* out = q + row * shape.row_bytes + col * kBits / 8;
#pragma unroll
  for (int i = 0; i < kItems; i += V) {
    const int first = i * kTeam + lane * V;
    int32_t code[V];
#pragma unroll
    for (int k = 0; k < V; ++k) code[k] = quantize_nearest(held[i + k], group, low, high);
    store_codes<kBits, V>(code, n - first, shape.vectors, out + first * kBits / 8);
  }
}

// A warp ranges a piece of a group.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    quantize_ranges(GroupShape shape, Divisor pieces_per_group, const T* x, RangeBits* ranges) {
  constexpr int V = kVector<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  int64_t piece = (static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x) / kWarpLanes;
  const int64_t g = pieces_per_group.split(&piece);
  if (g >= shape.group_count) return;
  int64_t in_row = g;
  const int64_t row = shape.groups_per_row.split(&in_row);
  const int64_t col = in_row * shape.group;
  const int64_t length = min(shape.group, shape.cols - col);
  const int n = static_cast<int>(min(kPiece, length - piece * kPiece));
  const T* values = x + row * shape.cols + col + piece * kPiece;
  RangeBits range{0, 0, 0};
  for (int first = lane * V; first < n; first += kWarpLanes * V) {
    float held[V];
    load_vector(values + first, n - first, shape.vectors, held);
#pragma unroll
    for (int k = 0; k < V; ++k) widen(held[k], shape.symmetric, &range);
  }
  __syncwarp();
  range = team_range<kWarpLanes>(range, shape.symmetric);
  if (lane != 0) return;
  atomicMax(&ranges[g].magnitude, range.magnitude);
  if (shape.symmetric) return;
  atomicMax(&ranges[g].high, range.high);
  atomicMax(&ranges[g].low, range.low);
}

__global__ void __launch_bounds__(kBlockThreads)
    quantize_scales(int64_t group_count, int bits, bool symmetric, const RangeBits* ranges,
                    float* scale, int32_t* zero_point, int32_t* non_finite) {
  const int64_t g = static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x;
  if (g >= group_count) return;
  const QuantizeGroup group = finish_group(ranges[g], bits, symmetric, true, non_finite);
  scale[g] = group.scale;
  if (!symmetric) zero_point[g] = group.zero_point;
}

// By comparing: an index that is not known would put the block into local memory.
__device__ inline uint32_t word_of(const PhiloxBlock& block, int k) {
  const uint32_t low = k == 0 ? block.word[0] : block.word[1];
  const uint32_t high = k == 2 ? block.word[2] : block.word[3];
  return k < 2 ? low : high;
}

// A thread encodes a chunk of a row with scales that are in place.
template <class T, int kBits, bool kStochastic>
__global__ void __launch_bounds__(kBlockThreads)
    quantize_chunks(ChunkShape shape, const T* x, uint64_t seed, const float* scale,
                    const int32_t* zero_point, uint8_t* q) {
  constexpr int V = kVector<T>;
  ChunkGroups groups(shape, chunk_index());
  if (!groups.live()) return;
  const int64_t flat = groups.row() * shape.cols + groups.col();
  float held[V];
  load_vector(x + flat, groups.length(), shape.vectors, held);
  const bool symmetric = zero_point == nullptr;
  const int32_t low = quantize_low(kBits, symmetric), high = quantize_high(kBits, symmetric);
  QuantizeGroup group{};
  PhiloxBlock random{};
  int32_t code[V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    if (groups.enters(k)) {
      group.scale = scale[groups.index()];
      group.inverse = 1.0f / group.scale;
      group.zero_point = symmetric ? 0 : zero_point[groups.index()];
    }
    if (kStochastic) {
      const uint64_t index = static_cast<uint64_t>(flat + k);
      if (k == 0 || (index & 3) == 0) random = philox4x32(seed, index >> 2);
      code[k] = quantize_stochastic(held[k], group, low, high,
                                    philox_fraction(word_of(random, static_cast<int>(index & 3))));
    } else {
      code[k] = quantize_nearest(held[k], group, low, high);
    }
  }
  store_codes<kBits, V>(code, groups.length(), shape.vectors,
                        q + groups.row() * shape.row_bytes + groups.col() * kBits / 8);
}

// A thread looks at a vector.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    find_non_finite(int64_t numel, bool vectors, const T* x, int32_t* non_finite) {
  constexpr int V = kVector<T>;
  const int64_t first = chunk_index() * V;
  if (first >= numel) return;
  float held[V];
  load_vector(x + first, static_cast<int>(min(numel - first, int64_t{V})), vectors, held);
  RangeBits range{0, 0, 0};
#pragma unroll
  for (int k = 0; k < V; ++k) widen(held[k], true, &range);
  if (!range_is_finite(to_range(range))) *non_finite = 1;
}

// Whether a team holds each group, and no byte of q is shared by two groups.
bool one_pass(const QuantizePlan& plan, bool stochastic) {
  if (plan.rows == 0 || plan.cols == 0 || stochastic || plan.group > int64_t{kBlockThreads} * kHeld)
    return false;
  if (plan.per_tensor && plan.rows > 1) return false;
  return plan.bits == 8 || plan.group % 2 == 0 || plan.groups_per_row == 1;
}

GroupShape group_shape(const QuantizePlan& plan, const void* x, const void* q, int vector) {
  // x itself has no padding: one range for the tensor sees one row.
  const bool flat = plan.per_tensor;
  const int64_t cols = flat ? plan.rows * plan.cols : plan.cols;
  const int64_t group = flat ? cols : plan.group;
  // Where all rows, and all groups in them, begin at a multiple of a vector.
  const bool rows_fit = flat || plan.rows == 1 || cols % vector == 0;
  const bool groups_fit = plan.groups_per_row == 1 || group % vector == 0;
  return {plan.group_count,
          cols,
          group,
          plan.row_bytes,
          Divisor(plan.groups_per_row, plan.group_count),
          plan.symmetric,
          is_aligned(x, 16) && is_aligned(q, vector) && rows_fit && groups_fit};
}

template <class T, int kBits>
cudaError_t launch_groups(const QuantizePlan& plan, const void* x, void* q, float* scale,
                          int32_t* zero_point, int32_t* non_finite, cudaStream_t stream) {
  constexpr int V = kVector<T>;
  const GroupShape shape = group_shape(plan, x, q, V);
  const auto launch = [&](auto kernel, int team) {
    kernel<<<blocks_for(plan.group_count * team), kBlockThreads, 0, stream>>>(
        shape, static_cast<const T*>(x), static_cast<uint8_t*>(q), scale, zero_point, non_finite);
  };
  if (plan.group <= 8 * V) {
    launch(quantize_groups<T, kBits, 8, V>, 8);
  } else if (plan.group <= 16 * V) {
    launch(quantize_groups<T, kBits, 16, V>, 16);
  } else if (plan.group <= 32 * V) {
    launch(quantize_groups<T, kBits, 32, V>, 32);
  } else if (plan.group <= 32 * kHeld) {
    launch(quantize_groups<T, kBits, 32, kHeld>, 32);
  } else if (plan.group <= kBlockThreads * kHeld / 2) {
    launch(quantize_groups<T, kBits, kBlockThreads, kHeld / 2>, kBlockThreads);
  } else {
    launch(quantize_groups<T, kBits, kBlockThreads, kHeld>, kBlockThreads);
  }
  return cudaGetLastError();
}

template <class T, int kBits>
cudaError_t launch_passes(const QuantizePlan& plan, const void* x, const uint64_t* seed, void* q,
                          float* scale, int32_t* zero_point, int32_t* non_finite, RangeBits* ranges,
                          cudaStream_t stream) {
  constexpr int V = kVector<T>;
  if (plan.group_count == 0) return cudaSuccess;
  const cudaError_t cleared =
      cudaMemsetAsync(ranges, 0, static_cast<size_t>(plan.group_count) * sizeof(RangeBits), stream);
  if (cleared != cudaSuccess) return cleared;
  const GroupShape groups = group_shape(plan, x, x, V);
  const bool empty = plan.rows == 0 || plan.cols == 0;
  if (!empty) {
    const int64_t pieces = ceil_div(groups.group, kPiece);
    const int64_t warps = pieces * plan.group_count;
    quantize_ranges<T><<<blocks_for(warps * kWarpLanes), kBlockThreads, 0, stream>>>(
        groups, Divisor(pieces, warps + kBlockThreads), static_cast<const T*>(x), ranges);
  }
  quantize_scales<<<blocks_for(plan.group_count), kBlockThreads, 0, stream>>>(
      plan.group_count, plan.bits, plan.symmetric, ranges, scale, zero_point, non_finite);
  if (!empty) {
    const ChunkShape chunks = chunk_shape(plan, x, q, V);
    const auto launch = [&](auto kernel) {
      kernel<<<blocks_for(chunks.count), kBlockThreads, 0, stream>>>(
          chunks, static_cast<const T*>(x), seed == nullptr ? 0 : *seed, scale,
          plan.symmetric ? nullptr : zero_point, static_cast<uint8_t*>(q));
    };
    if (seed == nullptr) {
      launch(quantize_chunks<T, kBits, false>);
    } else {
      launch(quantize_chunks<T, kBits, true>);
    }
  }
  return cudaGetLastError();
}

}  // namespace

int64_t quantize_workspace_bytes(const QuantizePlan& plan, bool stochastic) noexcept {
  return one_pass(plan, stochastic) ? 0
                                    : plan.group_count * static_cast<int64_t>(sizeof(RangeBits));
}

cudaError_t quantize_cuda(const QuantizePlan& plan, const void* x, DType dtype,
                          const uint64_t* seed, void* q, float* scale, int32_t* zero_point,
                          int32_t* non_finite, void* workspace, cudaStream_t stream) noexcept {
  return with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    const auto encode = [&](auto bits) {
      constexpr int kBits = decltype(bits)::value;
      if (one_pass(plan, seed != nullptr)) {
        return launch_groups<T, kBits>(plan, x, q, scale, zero_point, non_finite, stream);
      }
      return launch_passes<T, kBits>(plan, x, seed, q, scale, zero_point, non_finite,
                                     static_cast<RangeBits*>(workspace), stream);
    };
    return plan.bits == 8 ? encode(std::integral_constant<int, 8>())
                          : encode(std::integral_constant<int, 4>());
  });
}

cudaError_t find_non_finite_cuda(const void* x, DType dtype, int64_t numel, int32_t* non_finite,
                                 cudaStream_t stream) noexcept {
  if (numel == 0) return cudaSuccess;
  return with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    find_non_finite<<<blocks_for(ceil_div(numel, kVector<T>)), kBlockThreads, 0, stream>>>(
        numel, is_aligned(x, 16), static_cast<const T*>(x), non_finite);
    return cudaGetLastError();
  });
}

}  // namespace qvlmem
