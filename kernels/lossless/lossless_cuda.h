// SPDX-License-Identifier: Apache-2.0
// Lossless coding of level 1 on CUDA: the layout and the bytes of lossless.h, on device memory.
#pragma once

#include "kernels/base/cuda.h"
#include "kernels/lossless/lossless.h"

namespace qvlmem {

// Bytes of device memory, aligned to 16, that encoding needs from measuring on, and that decoding
// needs.
int64_t lossless_encode_workspace_bytes(const LosslessPlan& plan) noexcept;
int64_t lossless_decode_workspace_bytes(const LosslessPlan& plan) noexcept;

// Finds how x (dense, aligned to its scalars) is encoded: *bytes, on the device, becomes the size
// of the whole.
cudaError_t lossless_measure_cuda(const LosslessPlan& plan, const void* x, int64_t* bytes,
                                  void* workspace, cudaStream_t stream) noexcept;

// Writes all the bytes of x to `out`, aligned to 16. REQUIRES: the workspace as
// lossless_measure_cuda has left it. Where x has changed since, what is written means nothing, but
// lies inside.
cudaError_t lossless_encode_cuda(const LosslessPlan& plan, const void* x, uint8_t* out,
                                 const void* workspace, cudaStream_t stream) noexcept;

// Decodes `size` bytes, which may be hostile and at any address, to y (dense, aligned to its
// scalars). Where they are not a tensor of this plan that lossless_decode_cpu would decode, or have
// planes coded by entropy, *refused becomes 1 (the caller sets it to 0 before), and so many units
// of y as hold such planes or contradict themselves, or all, become bytes of 0xff: NaN in floats.
cudaError_t lossless_decode_cuda(const LosslessPlan& plan, const uint8_t* bytes, int64_t size,
                                 void* y, int32_t* refused, void* workspace,
                                 cudaStream_t stream) noexcept;

}  // namespace qvlmem
