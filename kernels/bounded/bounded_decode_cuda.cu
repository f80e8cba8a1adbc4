// SPDX-License-Identifier: Apache-2.0
// Decoding: a warp opens each unit, then each piece is unpacked alone. Nothing is trusted before it
// is checked: what pieces read by lies within the bytes whatever they hold. Another stream may
// change them meanwhile: where units begin and end is read once, and what is read again, headers of
// blocks, is taken as if it had been checked just then.
#include "kernels/bounded/bounded_device.cuh"

namespace qvlmem {
namespace {

// In place of where the first piece's payload begins: the unit was refused.
constexpr int32_t kRefusedUnit = -1;

struct PackedUnits {
  const uint8_t* packed;
  int64_t packed_bytes;
  const int64_t* ends;
  const float* step;

  __device__ int64_t bytes_of(int64_t unit) const { return ends[unit + 1] - ends[unit]; }
};

// Whether what stands beside a unit's bytes fits them, and its rows' steps are steps. By a warp.
__device__ inline bool unit_holds(const BoundedShape& shape, const UnitSpan& span, int64_t unit,
                                  const PackedUnits& in) {
  if (in.ends[shape.unit_count] != in.packed_bytes) return false;
  const int64_t begin = in.ends[unit], bytes = in.bytes_of(unit);
  const int64_t blocks = ceil_div(span.n, kPackBlock);
  if (bytes < 1 + blocks || bytes > 1 + blocks * static_cast<int64_t>(kIntPackMaxBytes)) {
    return false;
  }
  if (begin < 0 || begin > in.packed_bytes - bytes) return false;
  if (in.packed[begin] != static_cast<uint8_t>(BoundedMode::kPacked)) return false;
  const int rows = shape.fused ? static_cast<int>(span.n / shape.cols) : 1;
  bool steps = true;
  for (int r = warp_lane(); r < rows; r += kWarpLanes) {
    const float step = in.step[span.row + r];
    steps = steps && step > 0 && step <= kFloat32Max;
  }
  return __all_sync(kAllLanes, steps);
}

// A warp adds up the payloads that a unit's headers announce. False where they do not fill it.
__device__ inline bool open_pieces(const UnitSpan& span, const uint8_t* unit, int64_t bytes,
                                   int32_t* pieces) {
  const int blocks = static_cast<int>(ceil_div(span.n, kPackBlock));
  uint32_t before = 0;
  bool widths = true;
  for (int first = 0; first < blocks; first += kWarpLanes) {
    const int block = first + warp_lane();
    const uint8_t header = block < blocks ? unit[1 + block] : uint8_t{0};
    widths = widths && int_pack_width(header) <= 32;
    if (warp_lane() == 0) pieces[first / kWarpLanes] = static_cast<int32_t>(before);
    before += warp_sum(int_pack_payload_bytes(header));
  }
  return __all_sync(kAllLanes, widths) && bytes == int64_t{1} + blocks + before;
}

__global__ void __launch_bounds__(kPieceThreads)
    bounded_open(BoundedShape shape, PackedUnits in, int32_t* pieces, int32_t* refused) {
  const int64_t unit = warp_index();
  if (unit == 0 && warp_lane() == 0 && in.ends[shape.unit_count] != in.packed_bytes) *refused = 1;
  if (unit >= shape.unit_count) return;
  const UnitSpan span = unit_span(shape, unit);
  int32_t* const own = pieces + unit * shape.pieces;
  if (unit_holds(shape, span, unit, in) &&
      open_pieces(span, in.packed + in.ends[unit], in.bytes_of(unit), own)) {
    return;
  }
  __syncwarp();
  if (warp_lane() != 0) return;
  own[0] = kRefusedUnit;
  *refused = 1;
}

// Writes a piece of n staged integers to y as values.
template <class T>
__device__ __forceinline__ void unstage_integers(const BoundedShape& shape, const UnitSpan& span,
                                                 int piece, int n, const float* step,
                                                 const uint4* staged, T* y) {
  constexpr int V = kVector<T>;
  T* const values = y + span.begin + piece * kPieceValues;
#pragma unroll
  for (int round = 0; round < kPackBlock / V; ++round) {
    const int first = (round * kWarpLanes + warp_lane()) * V;
    if (first >= n) break;
    StepsInTurn steps(shape, span, step, piece * kPieceValues + first, n - first);
    float current = 0;
    T value[V];
#pragma unroll
    for (int k = 0; k < V; k += 4) {
      const uint4 chunk = staged[swizzled((first + k) / 4)];
      const uint32_t q[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (steps.enters(k + i)) current = steps.step();
        value[k + i] = bounded_dequantize<T>(static_cast<int32_t>(q[i]), current);
      }
    }
    store_elements<V>(value, n - first, shape.vectors, values + first);
  }
}

template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    bounded_decode_pieces(BoundedShape shape, PackedUnits in, const int32_t* pieces, T* y) {
  __shared__ uint4 staged[kPieceWarps][run_chunks(kIntPieceBytes)];
  uint4* const stage = staged[threadIdx.x / kWarpLanes];
  const int64_t warp = warp_index(), unit = warp / shape.pieces;
  if (unit >= shape.unit_count) return;
  const int piece = static_cast<int>(warp % shape.pieces);
  const UnitSpan span = unit_span(shape, unit);
  const int n = min(span.n - piece * kPieceValues, kPieceValues);
  if (n < 1) return;
  if (pieces[unit * shape.pieces] == kRefusedUnit) {
    uint8_t* const to = reinterpret_cast<uint8_t*>(y + span.begin + piece * kPieceValues);
    const int bytes = n * static_cast<int>(sizeof(T));
    for (int i = warp_lane(); i < bytes; i += kWarpLanes) to[i] = 0xff;
    return;
  }
  const uint8_t* const from = in.packed + in.ends[unit];
  const int block = piece * kWarpLanes + warp_lane();
  uint8_t header = block_length(n) > 0 ? from[1 + block] : uint8_t{0};
  if (int_pack_width(header) > 32) header = 0;
  uint32_t total;
  int at = static_cast<int>(warp_sum_before(int_pack_payload_bytes(header), &total));
  const uint8_t* const payload = from + 1 + ceil_div(span.n, kPackBlock) + pieces[warp];
  at += run_lead(payload);
  RunUnderWay<4> under_way;
  under_way.leave(payload, static_cast<int>(total), {in.packed, in.packed + in.packed_bytes});
  under_way.arrive(stage);
  __syncwarp();
  uint32_t base = int_pack_base(header);
  if (int_has_base(header)) {
    uint32_t word[1];
    words_at(stage, at, 1, word);
    base = word[0];
    at += 4;
  }
  const int width = static_cast<int>(int_pack_width(header));
  uint32_t value[kPackBlock];
  words_at(stage, at, width, value);
  __syncwarp();  // integers take the place of payloads
  unpack_int_block(base, width, value);
  put_block<4>(value, stage);
  __syncwarp();
  unstage_integers(shape, span, piece, n, in.step, stage, y);
}

}  // namespace

int64_t bounded_decode_workspace_bytes(const BoundedPlan& plan) noexcept {
  BoundedWorkspace w;
  return bounded_place_workspace(plan, false, nullptr, &w);
}

cudaError_t bounded_decode_cuda(const BoundedPlan& plan, const uint8_t* packed,
                                int64_t packed_bytes, const int32_t* bytes, const float* step,
                                void* y, DType dtype, int32_t* refused, void* workspace,
                                cudaStream_t stream) noexcept {
  BoundedWorkspace w;
  bounded_place_workspace(plan, false, workspace, &w);
  place_units<<<1, kBlockThreads, 0, stream>>>(plan.unit_count, 0, 1, bytes, w.ends,
                                               w.ends + plan.unit_count);
  const PackedUnits in{packed, packed_bytes, w.ends, step};
  return with_lossy_type(dtype, [&](auto element) {
    using T = decltype(element);
    const BoundedShape shape = bounded_shape(plan, y, sizeof(T));
    bounded_open<<<piece_blocks(plan.unit_count), kPieceThreads, 0, stream>>>(shape, in, w.pieces,
                                                                              refused);
    if (plan.unit_count > 0) {
      bounded_decode_pieces<<<piece_blocks(plan.unit_count * shape.pieces), kPieceThreads, 0,
                              stream>>>(shape, in, w.pieces, static_cast<T*>(y));
    }
    return cudaGetLastError();
  });
}

}  // namespace qvlmem
