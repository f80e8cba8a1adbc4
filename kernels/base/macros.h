// SPDX-License-Identifier: Apache-2.0
// What host and device code share.
#pragma once

#if defined(__CUDACC__) || defined(__CUDA__)
#define QVLMEM_HD __host__ __device__
#else
#define QVLMEM_HD
#endif
