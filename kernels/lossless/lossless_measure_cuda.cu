// SPDX-License-Identifier: Apache-2.0
// The first look at x: how each plane is coded, what each piece and each unit take. Only planes
// that a sample finds worth packing are looked at whole.
#include "kernels/coding/unit_ends_device.cuh"
#include "kernels/lossless/lossless_stage.cuh"

namespace qvlmem {
namespace {

// While a unit is measured, words[] holds for each piece: the words of its blocks, its first base,
// and whether it has no other.
constexpr int kBaseShift = 16, kUniformShift = 24;

// A warp chooses how the planes of a unit are coded.
template <int kScalarBytes>
__global__ void __launch_bounds__(kPieceThreads)
    lossless_choose(LosslessShape shape, ScalarMap<kScalarBytes> map, const uint8_t* x,
                    UnitLayout* layouts) {
  using P = Piece<kScalarBytes>;
  __shared__ uint4 staged[kPieceWarps][P::kArrays * P::kArrayChunks];
  uint4* const stage_of_warp = staged[threadIdx.x / kWarpLanes];
  const int64_t unit = warp_index();
  if (unit >= shape.unit_count) return;
  const int n = unit_length<kScalarBytes>(shape, unit);
  constexpr int kSample = static_cast<int>(kSampleScalars), kRuns = static_cast<int>(kSampleRuns);
  constexpr int kRun = static_cast<int>(kSampleRun);
  const int sampled = min(n, kSample);
  const bool whole = n <= kSample;
  // Runs begin wherever the unit's length puts them.
  const bool vectors = shape.vectors && (whole || n / kRuns % P::kVector == 0);
  const uint8_t* const from = x + unit * kLosslessUnitBytes;
  uint32_t widths = 0;  // of plane `lane`
  for (int first = 0; first < sampled; first += kPieceValues) {
    const int stride = n / kRuns;
    const PieceSource source{from + int64_t{whole ? first : first / kRun * stride} * kScalarBytes,
                             sampled - first, whole ? kPieceValues : kRun,
                             whole ? kPieceValues : stride};
    stage<kScalarBytes>(source, vectors, map, stage_of_warp);
    const int length = block_length(sampled - first);
#pragma unroll 1
    for (int a = 0; a < P::kArrays; ++a) {
      uint32_t word[P::kWords];
      take_block<P::kWordBytes>(stage_of_warp + a * P::kArrayChunks, word);
      transpose_planes<P::kWordBytes>(word);
#pragma unroll
      for (int p = 0; p < P::kWordBytes; ++p) {
        uint32_t plane[8];
        take_plane<P::kWordBytes>(word, p, plane);
        const uint32_t sum = warp_sum(byte_block_header(plane, length).width);
        if (warp_lane() == 4 * a + p) widths += sum;
      }
    }
    __syncwarp();
  }
  if (warp_lane() >= kScalarBytes) return;
  const size_t packed = byte_pack_header_bytes(sampled) + 4 * widths;
  const bool worth = packed < worthwhile(sampled);
  layouts[unit].entries[warp_lane()] =
      make_entry(worth ? LosslessMode::kPacked : LosslessMode::kRaw, 0);
}

// A warp finds what the packed planes of a piece take.
template <int kScalarBytes>
__global__ void __launch_bounds__(kPieceThreads)
    lossless_measure(LosslessShape shape, ScalarMap<kScalarBytes> map, const uint8_t* x,
                     UnitLayout* layouts) {
  using P = Piece<kScalarBytes>;
  __shared__ uint4 staged[kPieceWarps][P::kArrays * P::kArrayChunks];
  uint4* const stage_of_warp = staged[threadIdx.x / kWarpLanes];
  const int64_t index = warp_index();
  const int64_t unit = index / P::kPieces;
  if (index * kPieceValues >= shape.scalars) return;
  const int piece = static_cast<int>(index % P::kPieces);
  UnitLayout* const layout = layouts + unit;
  uint32_t packed_mask = 0;
#pragma unroll
  for (int b = 0; b < kScalarBytes; ++b) {
    const bool packed = entry_mode(layout->entries[b]) == LosslessMode::kPacked;
    packed_mask |= static_cast<uint32_t>(packed) << b;
  }
  if (packed_mask == 0) return;
  const int n = min(unit_length<kScalarBytes>(shape, unit) - piece * kPieceValues, kPieceValues);
  const PieceSource source{x + index * kPieceValues * kScalarBytes, n, kPieceValues, kPieceValues};
  stage<kScalarBytes>(source, shape.vectors, map, stage_of_warp);
  const int length = block_length(n);
#pragma unroll 1
  for (int a = 0; a < P::kArrays; ++a) {
    uint32_t word[P::kWords];
    take_block<P::kWordBytes>(stage_of_warp + a * P::kArrayChunks, word);
    transpose_planes<P::kWordBytes>(word);
#pragma unroll
    for (int p = 0; p < P::kWordBytes; ++p) {
      const int b = 4 * a + p;
      if ((packed_mask >> b & 1u) == 0) continue;
      uint32_t plane[8];
      take_plane<P::kWordBytes>(word, p, plane);
      const ByteBlockHeader header = byte_block_header(plane, length);
      const uint32_t sum = warp_sum(header.width);
      const uint32_t first = __shfl_sync(kAllLanes, header.base, 0);
      const uint32_t uniform = __all_sync(kAllLanes, length == 0 || header.base == first);
      if (warp_lane() == 0) {
        layout->words[b * P::kPieces + piece] =
            sum | first << kBaseShift | (uniform ? 1u : 0u) << kUniformShift;
      }
    }
  }
}

// The bytes of a packed plane of n values, or kOneByte where all of them are equal; its pieces'
// words[] become what UnitLayout says.
constexpr uint32_t kOneByte = 0;

__device__ inline uint32_t place_pieces(int n, uint32_t* words) {
  const int pieces = (n + kPieceValues - 1) / kPieceValues;
  const uint32_t base = words[0] >> kBaseShift & 0xffu;
  uint32_t before = 0;
  bool uniform = true;
  for (int first = 0; first < pieces; first += kWarpLanes) {
    const int i = first + warp_lane();
    const bool live = i < pieces;
    const uint32_t found = live ? words[i] : 0;
    uniform = uniform && __all_sync(kAllLanes, !live || (found >> kUniformShift != 0 &&
                                                         (found >> kBaseShift & 0xffu) == base));
    const uint32_t own = found & 0xffffu;
    uint32_t total;
    const uint32_t offset = before + warp_sum_before(own, &total);
    if (live) words[i] = offset | own << 20;
    before += total;
  }
  if (before == 0 && uniform) return kOneByte;
  return static_cast<uint32_t>(byte_pack_header_bytes(n)) + 4 * before;
}

// A warp adds up the pieces of a unit.
template <int kScalarBytes>
__global__ void __launch_bounds__(kPieceThreads)
    lossless_place_planes(LosslessShape shape, UnitLayout* layouts, int64_t* ends) {
  const int64_t unit = warp_index();
  if (unit >= shape.unit_count) return;
  UnitLayout* const layout = layouts + unit;
  const int n = unit_length<kScalarBytes>(shape, unit);
  const int lane = warp_lane();
  uint32_t entry = 0;  // of plane `lane`
  const uint32_t whole = static_cast<uint32_t>(n) * kScalarBytes;
  uint32_t size = kLosslessEntriesBytes;
#pragma unroll 1
  for (int b = 0; b < kScalarBytes; ++b) {
    LosslessMode mode = entry_mode(layout->entries[b]);
    uint32_t bytes = n;
    if (mode == LosslessMode::kPacked) {
      bytes = place_pieces(n, layout->words + b * Piece<kScalarBytes>::kPieces);
      if (bytes == kOneByte) {
        mode = LosslessMode::kConstant;
        bytes = 1;
      }
    }
    size += bytes;
    if (lane == b) entry = make_entry(mode, bytes);
  }
  uint32_t place = entry & 0xff000000u;
  if (size >= kLosslessEntriesBytes + whole) {
    size = kLosslessEntriesBytes + whole;
    entry = lane == 0 ? make_entry(LosslessMode::kStored, whole) : 0;
    place = (entry & 0xff000000u) | kLosslessEntriesBytes;
  } else {
    uint32_t at = kLosslessEntriesBytes;
    for (const bool raw : {true, false}) {
#pragma unroll 1
      for (int b = 0; b < kScalarBytes; ++b) {
        const uint32_t other = __shfl_sync(kAllLanes, entry, b);
        if ((entry_mode(other) == LosslessMode::kRaw) != raw) continue;
        if (lane == b) place |= at;
        at += static_cast<uint32_t>(entry_bytes(other));
      }
    }
  }
  __syncwarp();
  if (lane < static_cast<int>(kMaxPlanes)) {
    layout->entries[lane] = entry;
    layout->places[lane] = place;
  }
  if (lane == 0) ends[unit + 1] = size;
}

}  // namespace

int64_t lossless_encode_workspace_bytes(const LosslessPlan& plan) noexcept {
  return plan.unit_count * static_cast<int64_t>(sizeof(UnitLayout) + sizeof(int64_t)) +
         static_cast<int64_t>(sizeof(int64_t));
}

cudaError_t lossless_measure_cuda(const LosslessPlan& plan, const void* x, int64_t* bytes,
                                  void* workspace, cudaStream_t stream) noexcept {
  const LosslessShape shape = lossless_shape(plan, x);
  const auto* from = static_cast<const uint8_t*>(x);
  UnitLayout* const layouts = layouts_of(workspace);
  int64_t* const ends = ends_of(plan, workspace);
  if (plan.unit_count > 0) {
    with_scalar_bytes(plan.scalar_bytes, [&](auto scalar_bytes) {
      constexpr int kBytes = decltype(scalar_bytes)::value;
      const ScalarMap<kBytes> map(plan.map);
      const dim3 unit_blocks = piece_blocks(plan.unit_count);
      lossless_choose<kBytes><<<unit_blocks, kPieceThreads, 0, stream>>>(shape, map, from, layouts);
      lossless_measure<kBytes>
          <<<piece_blocks(ceil_div(plan.scalars, kPieceValues)), kPieceThreads, 0, stream>>>(
              shape, map, from, layouts);
      lossless_place_planes<kBytes>
          <<<unit_blocks, kPieceThreads, 0, stream>>>(shape, layouts, ends);
    });
  }
  place_units<<<1, kBlockThreads, 0, stream>>>(plan.unit_count, plan.header_bytes,
                                               kLosslessAlignment, ends + 1, ends, bytes);
  return cudaGetLastError();
}

}  // namespace qvlmem
