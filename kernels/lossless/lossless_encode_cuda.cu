// SPDX-License-Identifier: Apache-2.0
// The second look at x writes each piece where it will stay. From the last piece to the first:
// those read last are still in L2.
#include "kernels/lossless/lossless_stage.cuh"

namespace qvlmem {
namespace {

// What stands before the first unit but for the ends of units, by one warp.
__device__ inline void write_header(const LosslessShape& shape, DType dtype, int64_t count,
                                    uint8_t* out) {
  const int lane = warp_lane();
  if (lane == 0) {
    reinterpret_cast<uint32_t*>(out)[0] = kMagicWord;
    reinterpret_cast<uint32_t*>(out)[1] = static_cast<uint32_t>(dtype);
    reinterpret_cast<int64_t*>(out)[1] = count;
  }
  const int64_t at = kLosslessFixedBytes + 8 * shape.unit_count + lane;
  if (at < shape.header_bytes) out[at] = 0;
}

// A warp writes what belongs to a unit and to none of its pieces.
__device__ inline void write_unit_frame(const LosslessShape& shape, const UnitLayout& layout,
                                        int64_t unit, int64_t begin, int64_t end, uint8_t* out) {
  const int lane = warp_lane();
  if (lane < static_cast<int>(kMaxPlanes)) {
    reinterpret_cast<uint32_t*>(out + begin)[lane] = layout.entries[lane];
  }
  if (lane == 0) reinterpret_cast<int64_t*>(out + kLosslessFixedBytes)[unit] = end;
  if (unit + 1 < shape.unit_count && end + lane < lossless_unit_begin(end)) out[end + lane] = 0;
}

// A lane packs its block of a plane: header bytes in place, the words to the piece's run. Returns
// the words of the run. plane: where the plane's bytes go.
__device__ __forceinline__ int pack_plane(uint32_t (&word)[8], int length, int n, int piece,
                                          uint8_t* plane, uint32_t* run) {
  const int lane = warp_lane();
  const auto [base, width] = byte_block_header(word, length);
  const uint32_t next = __shfl_down_sync(kAllLanes, width, 1);
  uint32_t total;
  uint32_t* to = run + warp_sum_before(width, &total);
  if (length == 0) return static_cast<int>(total);
  const int block = piece * kWarpLanes + lane;
  if (lane % 2 == 0) plane[block / 2] = static_cast<uint8_t>(width | next << 4);
  const int blocks = static_cast<int>(byte_pack_blocks(n));
  plane[(blocks + 1) / 2 + block] = static_cast<uint8_t>(base);
  pack_byte_block(base, length, word);
#pragma unroll
  for (int b = 0; b < 8; ++b) {
    if (b < static_cast<int>(width)) to[b] = word[b];
  }
  return static_cast<int>(total);
}

// A warp writes a piece.
template <int kScalarBytes>
__global__ void __launch_bounds__(kPieceThreads)
    lossless_encode(LosslessShape shape, ScalarMap<kScalarBytes> map, DType dtype, int64_t count,
                    int64_t piece_count, const uint8_t* x, const UnitLayout* layouts,
                    const int64_t* ends, uint8_t* out) {
  using P = Piece<kScalarBytes>;
  constexpr int kPlaneChunks = kPieceValues / 16;
  __shared__ uint4 staged[kPieceWarps][P::kArrays * P::kArrayChunks + 1];
  uint4* const stage_of_warp = staged[threadIdx.x / kWarpLanes];
  const int64_t warp = warp_index();
  if (warp == 0) write_header(shape, dtype, count, out);
  if (warp >= piece_count) return;
  const int64_t index = piece_count - 1 - warp;
  const int64_t unit = index / P::kPieces;
  const int piece = static_cast<int>(index % P::kPieces);
  const UnitLayout& layout = layouts[unit];
  const int64_t begin = lossless_unit_begin(ends[unit]);
  if (piece == 0) write_unit_frame(shape, layout, unit, begin, ends[unit + 1], out);
  uint8_t* const to = out + begin;
  const uint8_t* const from = x + index * kPieceValues * kScalarBytes;
  const int unit_n = unit_length<kScalarBytes>(shape, unit);
  const int n = min(unit_n - piece * kPieceValues, kPieceValues);
  if (entry_mode(layout.places[0]) == LosslessMode::kStored) {
    copy_bytes(from, n * kScalarBytes,
               to + kLosslessEntriesBytes + piece * kPieceValues * kScalarBytes);
    return;
  }
  stage<kScalarBytes>({from, n, kPieceValues, kPieceValues}, shape.vectors, map, stage_of_warp);
  const int length = block_length(n);
  const int header_bytes = static_cast<int>(byte_pack_header_bytes(unit_n));
#pragma unroll 1
  for (int a = 0; a < P::kArrays; ++a) {
    uint4* const array = stage_of_warp + a * P::kArrayChunks;
    uint32_t word[P::kWords];
    take_block<P::kWordBytes>(array, word);
    transpose_planes<P::kWordBytes>(word);
    __syncwarp();  // planes take the place of the scalars
    int run_bytes[P::kWordBytes];
    uint8_t* run_to[P::kWordBytes];
#pragma unroll
    for (int p = 0; p < P::kWordBytes; ++p) {
      const uint32_t place = layout.places[4 * a + p];
      const LosslessMode mode = entry_mode(place);
      uint8_t* const plane_to = to + entry_bytes(place);
      uint32_t plane[8];
      take_plane<P::kWordBytes>(word, p, plane);
      run_bytes[p] = 0;
      run_to[p] = plane_to;
      if (mode == LosslessMode::kRaw) {
        uint32_t sequence[8];
        to_sequence(plane, sequence);
        uint4* const slot = array + p * kPlaneChunks + 2 * warp_lane();
        slot[0] = make_uint4(sequence[0], sequence[1], sequence[2], sequence[3]);
        slot[1] = make_uint4(sequence[4], sequence[5], sequence[6], sequence[7]);
        run_bytes[p] = n;
        run_to[p] = plane_to + piece * kPieceValues;
      } else if (mode == LosslessMode::kPacked) {
        const int words = pack_plane(plane, length, unit_n, piece, plane_to,
                                     reinterpret_cast<uint32_t*>(array + p * kPlaneChunks));
        // Of a tensor that has changed since it was measured no more than was measured.
        const uint32_t measured = layout.words[(4 * a + p) * P::kPieces + piece];
        run_bytes[p] = 4 * min(words, static_cast<int>(measured >> 20));
        run_to[p] = plane_to + header_bytes + 4 * (measured & 0xfffffu);
      } else if (piece == 0 && warp_lane() == 0) {
        *plane_to = static_cast<uint8_t>(plane[0]);
      }
    }
    __syncwarp();
#pragma unroll
    for (int p = 0; p < P::kWordBytes; ++p) {
      store_run(reinterpret_cast<const uint32_t*>(array + p * kPlaneChunks), run_bytes[p],
                run_to[p]);
    }
  }
}

}  // namespace

cudaError_t lossless_encode_cuda(const LosslessPlan& plan, const void* x, uint8_t* out,
                                 const void* workspace, cudaStream_t stream) noexcept {
  const LosslessShape shape = lossless_shape(plan, x);
  void* const held = const_cast<void*>(workspace);
  const int64_t pieces = ceil_div(plan.scalars, kPieceValues);
  with_scalar_bytes(plan.scalar_bytes, [&](auto scalar_bytes) {
    constexpr int kBytes = decltype(scalar_bytes)::value;
    lossless_encode<kBytes><<<piece_blocks(pieces), kPieceThreads, 0, stream>>>(
        shape, ScalarMap<kBytes>(plan.map), plan.dtype, plan.count, pieces,
        static_cast<const uint8_t*>(x), layouts_of(held), ends_of(plan, held), out);
  });
  return cudaGetLastError();
}

}  // namespace qvlmem
