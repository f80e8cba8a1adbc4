// SPDX-License-Identifier: Apache-2.0
// Decoding: a warp opens each unit, then each piece is read, merged and written alone. Nothing is
// trusted before it is checked: what pieces read by lies within the bytes whatever they hold.
// Another stream may change them meanwhile: where units and planes lie is read once, and what is
// read again, widths of blocks, is taken as if it had been checked just then.
#include "kernels/lossless/lossless_device.cuh"

namespace qvlmem {
namespace {

__device__ inline uint64_t read_bytes(const uint8_t* bytes, int count) {
  uint64_t value = 0;
  for (int i = 0; i < count; ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
  return value;
}

struct Encoded {
  const uint8_t* bytes;
  int64_t size;
};

__device__ inline bool header_holds(const LosslessShape& shape, DType dtype, int64_t count,
                                    Encoded in) {
  if (in.size < shape.header_bytes) return false;
  const bool holds = read_bytes(in.bytes, 4) == kMagicWord &&
                     in.bytes[4] == static_cast<uint8_t>(dtype) &&
                     read_bytes(in.bytes + 5, 3) == 0 &&
                     read_bytes(in.bytes + 8, 8) == static_cast<uint64_t>(count);
  return holds && (shape.unit_count > 0 || in.size == shape.header_bytes);
}

// Where a unit begins, and its bytes; 0 of them where its ends are none. REQUIRES: the size covers
// the header.
__device__ inline int unit_bytes(const LosslessShape& shape, Encoded in, int64_t unit,
                                 int64_t* begin) {
  const uint8_t* const ends = in.bytes + kLosslessFixedBytes;
  const uint64_t size = static_cast<uint64_t>(in.size);
  const uint64_t previous =
      unit == 0 ? static_cast<uint64_t>(shape.header_bytes) : read_bytes(ends + 8 * (unit - 1), 8);
  const uint64_t end = read_bytes(ends + 8 * unit, 8);
  if (previous < static_cast<uint64_t>(shape.header_bytes) || previous > size) return 0;
  *begin = lossless_unit_begin(static_cast<int64_t>(previous));
  if (end < static_cast<uint64_t>(*begin) || end > size) return 0;
  if (end > static_cast<uint64_t>(*begin + shape.unit_bound_bytes)) return 0;
  if (unit + 1 == shape.unit_count && end != size) return 0;
  return static_cast<int>(end - static_cast<uint64_t>(*begin));
}

// A warp adds up the widths of a packed plane of n values in `bytes` bytes, for its pieces' words.
// False where the widths ask for another number of bytes.
__device__ inline bool open_pieces(int n, const uint8_t* plane, int bytes, uint32_t* words) {
  const int blocks = static_cast<int>(byte_pack_blocks(n));
  const int header_bytes = static_cast<int>(byte_pack_header_bytes(n));
  if (bytes < header_bytes) return false;
  const int pieces = (n + kPieceValues - 1) / kPieceValues;
  uint32_t before = 0;
  bool fine = true;
  for (int first = 0; first < pieces; first += kWarpLanes) {
    const int i = first + warp_lane();
    uint32_t own = 0;
    if (i < pieces) {
      for (int block = i * kWarpLanes; block < min(blocks, (i + 1) * kWarpLanes); block += 2) {
        const uint32_t pair = plane[block / 2], low = pair & 15u, high = pair >> 4;
        own += low + high;
        fine = fine && low <= 8 && high <= 8 && (block + 1 < blocks || high == 0);
      }
    }
    uint32_t total;
    const uint32_t offset = before + warp_sum_before(own, &total);
    if (i < pieces) words[i] = offset | own << 20;
    before += total;
  }
  return __all_sync(kAllLanes, fine) && static_cast<uint32_t>(bytes - header_bytes) == 4 * before;
}

// A warp finds where the planes of a unit lie; in lane b, *place is that of plane b. False where
// the unit contradicts itself or has planes coded by entropy.
template <int kScalarBytes>
__device__ inline bool open_planes(int n, const uint8_t* in, int size, uint32_t* words,
                                   uint32_t* place) {
  const int lane = warp_lane();
  if (size < static_cast<int>(kLosslessEntriesBytes)) return false;
  const uint32_t entry = lane < static_cast<int>(kMaxPlanes)
                             ? static_cast<uint32_t>(read_bytes(in + kEntryBytes * lane, 4))
                             : 0;
  const uint32_t whole = static_cast<uint32_t>(n) * kScalarBytes;
  *place = (entry & 0xff000000u) | kLosslessEntriesBytes;
  if (__shfl_sync(kAllLanes, entry, 0) == make_entry(LosslessMode::kStored, whole)) {
    return size == static_cast<int>(kLosslessEntriesBytes + whole);
  }
  const LosslessMode mode = entry_mode(entry);
  const bool fine = mode == LosslessMode::kRaw        ? entry_bytes(entry) == size_t(n)
                    : mode == LosslessMode::kConstant ? entry_bytes(entry) == 1
                                                      : mode == LosslessMode::kPacked;
  if (!__all_sync(kAllLanes, lane >= kScalarBytes || fine)) return false;
  uint32_t at = kLosslessEntriesBytes;  // 8 planes of at most 2^24 bytes: no overflow
  for (const bool raw : {true, false}) {
#pragma unroll 1
    for (int b = 0; b < kScalarBytes; ++b) {
      const uint32_t other = __shfl_sync(kAllLanes, entry, b);
      if ((entry_mode(other) == LosslessMode::kRaw) != raw) continue;
      if (lane == b) *place = (entry & 0xff000000u) | at;
      at += static_cast<uint32_t>(entry_bytes(other));
    }
  }
  if (at != static_cast<uint32_t>(size)) return false;
#pragma unroll 1
  for (int b = 0; b < kScalarBytes; ++b) {
    const uint32_t other = __shfl_sync(kAllLanes, entry, b);
    if (entry_mode(other) != LosslessMode::kPacked) continue;
    const uint32_t from = __shfl_sync(kAllLanes, *place, b) & 0xffffffu;
    if (!open_pieces(n, in + from, static_cast<int>(entry_bytes(other)),
                     words + b * Piece<kScalarBytes>::kPieces)) {
      return false;
    }
  }
  return true;
}

template <int kScalarBytes>
__global__ void __launch_bounds__(kPieceThreads)
    lossless_open(LosslessShape shape, DType dtype, int64_t count, Encoded in, UnitLayout* layouts,
                  int32_t* refused) {
  const int64_t unit = warp_index();
  const int lane = warp_lane();
  const bool header = header_holds(shape, dtype, count, in);
  if (unit == 0 && lane == 0 && !header) *refused = 1;
  if (unit >= shape.unit_count) return;
  UnitLayout* const layout = layouts + unit;
  int64_t begin = 0;
  uint32_t place = 0;
  const int size = header ? unit_bytes(shape, in, unit, &begin) : 0;
  if (!open_planes<kScalarBytes>(unit_length<kScalarBytes>(shape, unit), in.bytes + begin, size,
                                 layout->words, &place)) {
    place = kRefusedMode << 24;
    if (lane == 0) *refused = 1;
  }
  if (lane < static_cast<int>(kMaxPlanes)) layout->places[lane] = place;
  if (lane == 0) layout->begin = begin;
}

// What a lane needs of its block of a packed plane.
struct PackedBlock {
  uint32_t base, width;
  int at;  // words before it in the run of its piece
};

__device__ inline PackedBlock packed_block(const uint8_t* plane, int n, int piece) {
  const int block = piece * kWarpLanes + warp_lane();
  const int blocks = static_cast<int>(byte_pack_blocks(n));
  PackedBlock found{0, 0, 0};
  if (block < blocks) {
    found.width = min(plane[block / 2] >> (block % 2 * 4) & 15u, 8u);
    found.base = plane[(blocks + 1) / 2 + block];
  }
  uint32_t total;
  found.at = static_cast<int>(warp_sum_before(found.width, &total));
  return found;
}

// Writes n staged scalars to y.
template <int kScalarBytes>
__device__ inline void unstage(const uint4* staged, int n, const ScalarMap<kScalarBytes>& map,
                               bool vectors, uint8_t* y) {
  using P = Piece<kScalarBytes>;
  constexpr int kRounds = P::kArrays * P::kArrayChunks / kWarpLanes;
  constexpr int kUnroll = kRounds < 4 ? kRounds : 4;
#pragma unroll kUnroll
  for (int i = 0; i < kRounds; ++i) {
    const int chunk = i * kWarpLanes + warp_lane();
    const int first = chunk * P::kVector;
    if (first >= n) break;
    Chunk<kScalarBytes> out;
    if constexpr (kScalarBytes == 8) {
      const uint2* halves =
          reinterpret_cast<const uint2*>(staged + swizzled(chunk / 2)) + chunk % 2;
      const uint2 low = halves[0], high = halves[2 * P::kArrayChunks];
      out.pair[0] = make_uint2(low.x, high.x);
      out.pair[1] = make_uint2(low.y, high.y);
    } else {
      out.raw = staged[swizzled(chunk)];
    }
#pragma unroll
    for (auto& word : out.word) word = map.unmap(word);
    store_elements<P::kVector>(out.scalar, n - first, vectors,
                               reinterpret_cast<Scalar<kScalarBytes>*>(y) + first);
  }
}

template <int kScalarBytes>
__global__ void __launch_bounds__(kPieceThreads)
    lossless_decode(LosslessShape shape, ScalarMap<kScalarBytes> map, Encoded in,
                    const UnitLayout* layouts, uint8_t* y) {
  using P = Piece<kScalarBytes>;
  // A plane's run, and then its share of the words that all planes make together.
  constexpr int kRunChunks = run_chunks(kPieceValues);
  constexpr int kStage = P::kArrays * P::kArrayChunks;
  constexpr int kRuns = P::kWordBytes * kRunChunks + (P::kArrays - 1) * P::kArrayChunks;
  __shared__ uint4 staged[kPieceWarps][kStage > kRuns ? kStage : kRuns];
  uint4* const stage_of_warp = staged[threadIdx.x / kWarpLanes];
  const int64_t index = warp_index();
  if (index * kPieceValues >= shape.scalars) return;
  const int64_t unit = index / P::kPieces;
  const int piece = static_cast<int>(index % P::kPieces);
  const UnitLayout& layout = layouts[unit];
  const uint32_t first_mode = layout.places[0] >> 24;
  const int lane = warp_lane();
  uint8_t* const to = y + index * kPieceValues * kScalarBytes;
  const int unit_n = unit_length<kScalarBytes>(shape, unit);
  const int n = min(unit_n - piece * kPieceValues, kPieceValues);
  if (first_mode == kRefusedMode) {
    for (int i = lane; i < n * kScalarBytes; i += kWarpLanes) to[i] = 0xff;
    return;
  }
  const uint8_t* const from = in.bytes + layout.begin;
  if (first_mode == static_cast<uint32_t>(LosslessMode::kStored)) {
    copy_bytes(from + kLosslessEntriesBytes + piece * kPieceValues * kScalarBytes, n * kScalarBytes,
               to);
    return;
  }
  const Readable all{in.bytes, in.bytes + in.size};
  const int header_bytes = static_cast<int>(byte_pack_header_bytes(unit_n));
#pragma unroll 1
  for (int a = 0; a < P::kArrays; ++a) {
    uint4* const array = stage_of_warp + a * P::kArrayChunks;
    // Each lane has two chunks of a whole piece of a plane.
    RunUnderWay<2> under_way[P::kWordBytes];
    int lead[P::kWordBytes];
#pragma unroll
    for (int p = 0; p < P::kWordBytes; ++p) {
      const uint32_t place = layout.places[4 * a + p];
      const LosslessMode mode = entry_mode(place);
      const uint8_t* run_from = from + entry_bytes(place);
      int run_bytes = 0;
      if (mode == LosslessMode::kRaw) {
        run_from += piece * kPieceValues;
        run_bytes = n;
      } else if (mode == LosslessMode::kPacked) {
        const uint32_t words = layout.words[(4 * a + p) * P::kPieces + piece];
        run_from += header_bytes + 4 * (words & 0xfffffu);
        run_bytes = static_cast<int>(4 * (words >> 20));
      }
      lead[p] = run_lead(run_from);
      under_way[p].leave(run_from, run_bytes, all);
    }
#pragma unroll
    for (int p = 0; p < P::kWordBytes; ++p) under_way[p].arrive(array + p * kRunChunks);
    __syncwarp();
    uint32_t word[P::kWords];
#pragma unroll
    for (int p = 0; p < P::kWordBytes; ++p) {
      const uint32_t place = layout.places[4 * a + p];
      const LosslessMode mode = entry_mode(place);
      const uint8_t* const plane_from = from + entry_bytes(place);
      const uint4* const run = array + p * kRunChunks;
      uint32_t plane[8];
      if (mode == LosslessMode::kRaw) {
        uint32_t sequence[8];
        if (lead[p] == 0) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const uint4 chunk = run[2 * lane + half];
            sequence[4 * half] = chunk.x;
            sequence[4 * half + 1] = chunk.y;
            sequence[4 * half + 2] = chunk.z;
            sequence[4 * half + 3] = chunk.w;
          }
        } else {
          words_at(run, lead[p] + 32 * lane, 8, sequence);
        }
        from_sequence(sequence, plane);
      } else if (mode == LosslessMode::kPacked) {
        const PackedBlock block = packed_block(plane_from, unit_n, piece);
        words_at(run, lead[p] + 4 * block.at, static_cast<int>(block.width), plane);
        unpack_byte_block(block.base, plane);
      } else {
#pragma unroll
        for (int j = 0; j < 8; ++j) plane[j] = *plane_from * 0x01010101u;
      }
#pragma unroll
      for (int j = 0; j < 8; ++j) word[plane_word<P::kWordBytes>(p, j)] = plane[j];
    }
    __syncwarp();  // words take the place of runs
    transpose_planes<P::kWordBytes>(word);
    put_block<P::kWordBytes>(word, array);
  }
  __syncwarp();
  unstage<kScalarBytes>(stage_of_warp, n, map, shape.vectors, to);
}

}  // namespace

int64_t lossless_decode_workspace_bytes(const LosslessPlan& plan) noexcept {
  return plan.unit_count * static_cast<int64_t>(sizeof(UnitLayout));
}

cudaError_t lossless_decode_cuda(const LosslessPlan& plan, const uint8_t* bytes, int64_t size,
                                 void* y, int32_t* refused, void* workspace,
                                 cudaStream_t stream) noexcept {
  const LosslessShape shape = lossless_shape(plan, y);
  const Encoded in{bytes, size};
  auto* const layouts = static_cast<UnitLayout*>(workspace);
  with_scalar_bytes(plan.scalar_bytes, [&](auto scalar_bytes) {
    constexpr int kBytes = decltype(scalar_bytes)::value;
    lossless_open<kBytes><<<piece_blocks(plan.unit_count), kPieceThreads, 0, stream>>>(
        shape, plan.dtype, plan.count, in, layouts, refused);
    lossless_decode<kBytes>
        <<<piece_blocks(ceil_div(plan.scalars, kPieceValues)), kPieceThreads, 0, stream>>>(
            shape, ScalarMap<kBytes>(plan.map), in, layouts, static_cast<uint8_t*>(y));
  });
  return cudaGetLastError();
}

}  // namespace qvlmem
