// SPDX-License-Identifier: Apache-2.0
// What units take with steps that are found, and packing them. Both look at x and make the same
// integers of it: keeping these from one to the other would move more than x.
#include "kernels/bounded/bounded_device.cuh"

namespace qvlmem {
namespace {

constexpr int kPieceChunks = kPieceValues / 4;  // of integers

// Stages the integers of a piece of n values.
template <class T>
__device__ __forceinline__ void stage_integers(const BoundedShape& shape, const UnitSpan& span,
                                               int piece, int n, const T* x, const float* step,
                                               uint4* staged) {
  constexpr int V = kVector<T>;
  const T* const values = x + span.begin + piece * kPieceValues;
  T element[kPackBlock / V][V];  // all loads are sent off before one is waited for
#pragma unroll
  for (int round = 0; round < kPackBlock / V; ++round) {
    const int first = (round * kWarpLanes + warp_lane()) * V;
    load_elements<V>(values + first, n - first, shape.vectors, element[round]);
  }
#pragma unroll
  for (int round = 0; round < kPackBlock / V; ++round) {
    const int first = (round * kWarpLanes + warp_lane()) * V;
    uint32_t q[V] = {};
    if (first < n) {
      StepsInTurn steps(shape, span, step, piece * kPieceValues + first, n - first);
      BoundedStep current{};
#pragma unroll
      for (int k = 0; k < V; ++k) {
        if (steps.enters(k)) current = bounded_step(steps.step());
        q[k] = static_cast<uint32_t>(bounded_quantize(to_float(element[round][k]), current));
      }
    }
#pragma unroll
    for (int k = 0; k < V; k += 4) {
      staged[swizzled((first + k) / 4)] = make_uint4(q[k], q[k + 1], q[k + 2], q[k + 3]);
    }
  }
  __syncwarp();
}

// A piece that a warp works on, or none.
struct PieceOfUnit {
  int64_t unit;
  UnitSpan span;
  int piece;
  int n;  // values; below 1 where there is none
};

__device__ inline PieceOfUnit piece_of_warp(const BoundedShape& shape) {
  const int64_t warp = warp_index();
  PieceOfUnit found{};
  found.unit = warp / shape.pieces;
  if (found.unit >= shape.unit_count) return found;
  found.piece = static_cast<int>(warp % shape.pieces);
  found.span = unit_span(shape, found.unit);
  found.n = min(found.span.n - found.piece * kPieceValues, kPieceValues);
  return found;
}

// A warp finds the bytes of a piece's payloads.
template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    bounded_measure_pieces(BoundedShape shape, const T* x, const float* step, int32_t* pieces) {
  __shared__ uint4 staged[kPieceWarps][kPieceChunks];
  uint4* const stage = staged[threadIdx.x / kWarpLanes];
  const PieceOfUnit at = piece_of_warp(shape);
  if (at.n < 1) return;
  stage_integers(shape, at.span, at.piece, at.n, x, step, stage);
  const int length = block_length(at.n);
  uint32_t value[kPackBlock];
  take_block<4>(stage, value);
  fill_int_block(length, value);
  const int words = length > 0 ? int_payload_words(int_block_header(value).header) : 0;
  const uint32_t total = warp_sum(static_cast<uint32_t>(words));
  if (warp_lane() == 0) {
    pieces[at.unit * shape.pieces + at.piece] = static_cast<int32_t>(4 * total);
  }
}

// A warp adds up the pieces of a unit. At most 32, for a unit has at most 32768 values.
__global__ void __launch_bounds__(kPieceThreads)
    bounded_place_pieces(BoundedShape shape, int32_t* pieces, int32_t* bytes) {
  const int64_t unit = warp_index();
  if (unit >= shape.unit_count) return;
  const UnitSpan span = unit_span(shape, unit);
  const bool live = warp_lane() * kPieceValues < span.n;
  int32_t* const piece = pieces + unit * shape.pieces + warp_lane();
  uint32_t total;
  const uint32_t before = warp_sum_before(live ? static_cast<uint32_t>(*piece) : 0, &total);
  if (live) *piece = static_cast<int32_t>(before);
  if (warp_lane() == 0) {
    bytes[unit] = static_cast<int32_t>(1 + ceil_div(span.n, kPackBlock) + total);
  }
}

// A warp packs a piece.
template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    bounded_encode_pieces(BoundedShape shape, const T* x, const float* step, const int32_t* pieces,
                          const int64_t* ends, uint8_t* packed) {
  __shared__ uint4 staged[kPieceWarps][run_chunks(kIntPieceBytes)];
  uint4* const stage = staged[threadIdx.x / kWarpLanes];
  const PieceOfUnit at = piece_of_warp(shape);
  if (at.n < 1) return;
  stage_integers(shape, at.span, at.piece, at.n, x, step, stage);
  const int lane = warp_lane(), length = block_length(at.n);
  uint32_t value[kPackBlock];
  take_block<4>(stage, value);
  __syncwarp();  // payloads take the place of integers
  fill_int_block(length, value);
  const IntBlockHeader block = int_block_header(value);
  const int words = length > 0 ? int_payload_words(block.header) : 0;
  const int width = length > 0 ? static_cast<int>(int_pack_width(block.header)) : 0;
  uint32_t total;
  uint32_t* run = reinterpret_cast<uint32_t*>(stage);
  run += warp_sum_before(static_cast<uint32_t>(words), &total);
  if (words > width) *run++ = block.base;
  pack_int_block(block.base, width, value);
#pragma unroll
  for (int b = 0; b < kPackBlock; ++b) {
    if (b < width) run[b] = value[b];
  }
  uint8_t* const to = packed + ends[at.unit];
  if (at.piece == 0 && lane == 0) to[0] = static_cast<uint8_t>(BoundedMode::kPacked);
  if (length > 0) to[1 + at.piece * kWarpLanes + lane] = static_cast<uint8_t>(block.header);
  __syncwarp();
  // Of a tensor that has changed since it was measured no more than was measured.
  const int64_t headers = 1 + ceil_div(at.span.n, kPackBlock);
  const int32_t* const begin = pieces + at.unit * shape.pieces + at.piece;
  const int64_t payloads = ends[at.unit + 1] - ends[at.unit] - headers;
  const bool is_last = (at.piece + 1) * kPieceValues >= at.span.n;
  const int measured = (is_last ? static_cast<int>(payloads) : begin[1]) - begin[0];
  store_run(reinterpret_cast<const uint32_t*>(stage), min(static_cast<int>(4 * total), measured),
            to + headers + begin[0]);
}

// Calls f with x as values of its dtype, and its shape.
template <class F>
cudaError_t with_values(const BoundedPlan& plan, const void* x, DType dtype, const F& f) {
  return with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    f(static_cast<const T*>(x), bounded_shape(plan, x, sizeof(T)));
    return cudaGetLastError();
  });
}

}  // namespace

int64_t bounded_encode_workspace_bytes(const BoundedPlan& plan) noexcept {
  BoundedWorkspace w;
  return bounded_place_workspace(plan, true, nullptr, &w);
}

cudaError_t bounded_find_cuda(const BoundedPlan& plan, const void* x, DType dtype,
                              const BoundedTarget& target, BoundedLooks looks, float* step,
                              int32_t* bytes, BoundedFound* found, void* workspace,
                              cudaStream_t stream) noexcept {
  cudaError_t error = cudaMemsetAsync(found, 0, sizeof(BoundedFound), stream);
  if (error != cudaSuccess) return error;
  error = bounded_steps_cuda(plan, x, dtype, target, looks, step, found, workspace, stream);
  if (error != cudaSuccess) return error;
  return with_values(plan, x, dtype, [&](auto* values, const BoundedShape& shape) {
    BoundedWorkspace w;
    bounded_place_workspace(plan, true, workspace, &w);
    if (plan.unit_count > 0) {
      bounded_measure_pieces<<<piece_blocks(plan.unit_count * shape.pieces), kPieceThreads, 0,
                               stream>>>(shape, values, step, w.pieces);
      bounded_place_pieces<<<piece_blocks(plan.unit_count), kPieceThreads, 0, stream>>>(
          shape, w.pieces, bytes);
    }
    place_units<<<1, kBlockThreads, 0, stream>>>(plan.unit_count, 0, 1, bytes, w.ends,
                                                 &found->total_bytes);
  });
}

cudaError_t bounded_encode_cuda(const BoundedPlan& plan, const void* x, DType dtype,
                                const float* step, uint8_t* packed, const void* workspace,
                                cudaStream_t stream) noexcept {
  if (plan.unit_count == 0) return cudaSuccess;
  return with_values(plan, x, dtype, [&](auto* values, const BoundedShape& shape) {
    BoundedWorkspace w;
    bounded_place_workspace(plan, true, const_cast<void*>(workspace), &w);
    bounded_encode_pieces<<<piece_blocks(plan.unit_count * shape.pieces), kPieceThreads, 0,
                            stream>>>(shape, values, step, w.pieces, w.ends, packed);
  });
}

}  // namespace qvlmem
