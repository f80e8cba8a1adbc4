// SPDX-License-Identifier: Apache-2.0
#include "ops/backend.h"

namespace qvlmem {

const Backend kCudaBackend{ops::quantize_cuda,        ops::dequantize_cuda,
                           ops::all_finite_cuda,      ops::to_fp16_cuda,
                           ops::from_fp16_cuda,       ops::measure_error_cuda,
                           ops::sparse_compact_cuda,  ops::sparse_expand_cuda,
                           ops::sparse_nonzero_cuda,  ops::sparse_coo_indices_cuda,
                           ops::svd_device_cuda,      ops::svd_reconstruct_cuda,
                           ops::lossless_encode_cuda, ops::lossless_decode_cuda,
                           ops::encode_bounded_cuda,  ops::decode_bounded_cuda};

}  // namespace qvlmem
