// SPDX-License-Identifier: Apache-2.0
// The tables of the library, in the order in which they must be registered.
#pragma once

#include <torch/library.h>

namespace qvlmem::registration {

// The ops that take and give tensors alone. All have a kernel on each back end; none is
// differentiable.
constexpr const char* kTensorOps[] = {
    "quantize",         //
    "dequantize",       //
    "to_fp16",          //
    "from_fp16",        //
    "svd",              //
    "svd_reconstruct",  //
    "sparsify",         //
    "densify",          //
    "lossless_encode",  //
    "lossless_decode",  //
    "profile_values",   //
};

// library.cpp calls these once, classes before the schemas that name them.
void register_classes(torch::Library& m);
void register_schemas(torch::Library& m);
// One function for all back ends: ops that take or give objects, and the refusal of all else.
void register_composite(torch::Library& m);
void register_cpu(torch::Library& m);
void register_cuda(torch::Library& m);  // in a build with CUDA
void register_meta(torch::Library& m);
void register_autograd(torch::Library& m);

}  // namespace qvlmem::registration
