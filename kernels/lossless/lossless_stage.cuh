// SPDX-License-Identifier: Apache-2.0
// What the two looks at a tensor share: how a piece of it comes to registers as planes, and where
// the workspace has what the first look found.
#pragma once

#include "kernels/lossless/lossless_device.cuh"

namespace qvlmem {

// Where the chunks of a piece come from: one run of n scalars, or several, `stride` scalars apart.
struct PieceSource {
  const uint8_t* from;
  int n;
  int run, stride;  // scalars; run: whole chunks, or all
};

// Stages a piece as words. What is beyond its scalars is 0.
template <int kScalarBytes>
__device__ __forceinline__ void stage(const PieceSource& source, bool vectors,
                                      const ScalarMap<kScalarBytes>& map, uint4* staged) {
  using P = Piece<kScalarBytes>;
  constexpr int kRounds = P::kArrays * P::kArrayChunks / kWarpLanes;
  constexpr int kUnderWay = kRounds < 8 ? kRounds : 8;  // all sent off before one is waited for
#pragma unroll 1
  for (int round = 0; round < kRounds; round += kUnderWay) {
    Chunk<kScalarBytes> in[kUnderWay];
#pragma unroll
    for (int i = 0; i < kUnderWay; ++i) {
      const int first = ((round + i) * kWarpLanes + warp_lane()) * P::kVector;
      const int at = first / source.run * source.stride + first % source.run;
      load_elements<P::kVector>(reinterpret_cast<const Scalar<kScalarBytes>*>(source.from) + at,
                                source.n - first, vectors, in[i].scalar);
    }
#pragma unroll
    for (int i = 0; i < kUnderWay; ++i) {
      const int chunk = (round + i) * kWarpLanes + warp_lane();
#pragma unroll
      for (auto& word : in[i].word) word = map.map(word);
      if constexpr (kScalarBytes == 8) {
        uint2* halves = reinterpret_cast<uint2*>(staged + swizzled(chunk / 2)) + chunk % 2;
        halves[0] = make_uint2(in[i].pair[0].x, in[i].pair[1].x);
        halves[2 * P::kArrayChunks] = make_uint2(in[i].pair[0].y, in[i].pair[1].y);
      } else {
        staged[swizzled(chunk)] = in[i].raw;
      }
    }
  }
  __syncwarp();
}

template <int kWordBytes>
__device__ inline void take_plane(const uint32_t (&word)[8 * kWordBytes], int p,
                                  uint32_t (&plane)[8]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) plane[j] = word[plane_word<kWordBytes>(p, j)];
}

// Encoding's workspace: the layout of each unit; where the first unit begins, and each ends.
inline UnitLayout* layouts_of(void* workspace) { return static_cast<UnitLayout*>(workspace); }

inline int64_t* ends_of(const LosslessPlan& plan, void* workspace) {
  return reinterpret_cast<int64_t*>(layouts_of(workspace) + plan.unit_count);
}

}  // namespace qvlmem
