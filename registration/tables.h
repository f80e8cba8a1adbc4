// SPDX-License-Identifier: Apache-2.0
// The tables of the library, in the order in which they must be registered.
#pragma once

#include <torch/library.h>

namespace qvlmem::registration {

// library.cpp calls these once, classes before the schemas that name them.
void register_classes(torch::Library& m);
void register_schemas(torch::Library& m);
void register_composite(
    torch::Library& m);  // ops that take or give objects: one function for all back ends
void register_cpu(torch::Library& m);
void register_meta(torch::Library& m);
void register_autograd(torch::Library& m);

}  // namespace qvlmem::registration
