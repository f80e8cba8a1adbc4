// SPDX-License-Identifier: Apache-2.0
// What the declarations of CUDA entries need. Such an entry is asynchronous on its stream, does not
// synchronise, and returns what launching its kernels returned.
#pragma once

#include <cuda_runtime_api.h>

// Another toolkit's headers give other struct layouts than the runtime that is linked. The build says
// which version it is for.
static_assert(CUDART_VERSION == QVLMEM_CUDART_VERSION,
              "the headers of another CUDA version come first on the include path");
