# SPDX-License-Identifier: Apache-2.0
# Tests of a build with CUDA kernels. On a machine without a GPU those that run a kernel skip, unless the environment
# variable QVLMEM_CUDA_SIM names a folder with a libcudart.so.12 that simulates one: then they run on it, twice, with
# the warps of a block in both orders, and with and without guard bytes around tensors. QVLMEM_REQUIRE_CUDA=1 has them
# fail instead of skip.

set(QVLMEM_CUDA_TESTS
  kernels/bounded_cuda_test.cpp
  kernels/error_cuda_test.cpp
  kernels/half_cuda_test.cpp
  kernels/lossless_cuda_test.cpp
  kernels/profile_cuda_test.cpp
  kernels/quantize_cuda_test.cpp
  kernels/sparse_cuda_test.cpp
  kernels/sparse_decode_cuda_test.cpp
  kernels/svd_cuda_test.cpp
)

# One executable a source, and one test of ctest each: a simulated device costs little to start, but every test does.
function(qvlmem_add_cuda_test source)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE qvlmem_kernels_cuda qvlmem_kernels GTest::gtest_main)
  foreach(order forward reverse)
    add_test(NAME ${name}_${order} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/with_cuda_device ${order} $<TARGET_FILE:${name}>)
    set_tests_properties(${name}_${order} PROPERTIES LABELS cuda SKIP_RETURN_CODE 77)
  endforeach()
endfunction()

if(QVLMEM_KERNELS_ONLY)
  set(library qvlmem_kernels_cuda)
  foreach(source ${QVLMEM_CUDA_TESTS})
    qvlmem_add_cuda_test(${source})
  endforeach()
else()
  set(library qvlmem)
endif()

# What is compiled into the library, for the architectures that were asked for by number. The oldest has no memory
# bandwidth to spare for spilled registers.
find_program(QVLMEM_CUOBJDUMP cuobjdump HINTS ${CUDAToolkit_BIN_DIR})
find_package(Python3 COMPONENTS Interpreter)
if(QVLMEM_CUOBJDUMP AND Python3_FOUND)
  set(expected "")
  if(CMAKE_CUDA_ARCHITECTURES MATCHES "^[0-9]")
    set(ptx ${CMAKE_CUDA_ARCHITECTURES})
    list(FILTER ptx EXCLUDE REGEX "-real$")
    list(GET CMAKE_CUDA_ARCHITECTURES 0 oldest)
    list(JOIN CMAKE_CUDA_ARCHITECTURES "," sass)
    list(JOIN ptx "," ptx)
    set(expected --sass=${sass} --ptx=${ptx} --no-stack=${oldest})
  endif()
  add_test(NAME device_code COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/check_device_code.py
    --cuobjdump ${QVLMEM_CUOBJDUMP} ${expected} $<TARGET_FILE:${library}>)
  set_tests_properties(device_code PROPERTIES LABELS cuda)
else()
  message(STATUS "No cuobjdump beside nvcc or no Python: the device code is not checked")
endif()
