// SPDX-License-Identifier: Apache-2.0
#pragma once

// Marks what libqvlmem.so shows to C++ programs; everything else in it is hidden.
#define QVLMEM_API __attribute__((visibility("default")))
