# SPDX-License-Identifier: Apache-2.0
# Whether CUDA kernels are built (QVLMEM_WITH_CUDA), and what compiles them. One CUDA version in a process: the
# toolkit's must be PyTorch's. AUTO takes none but that; ON also another of the same major version, and says so.
#   qvlmem_cudart      the runtime's headers, first on the include path, and QVLMEM_CUDART_VERSION, which
#                      kernels/base/cuda.h holds against the headers that were found
#   qvlmem_cuda_flags  how device code is compiled
set(QVLMEM_CUDA_ROOT "" CACHE PATH "The folder of the CUDA toolkit (default: that of the CUDA compiler, else of nvcc)")
set(QVLMEM_WITH_CUDA FALSE)
set(QVLMEM_CUDA_VERSION "")
if(QVLMEM_CUDA STREQUAL "OFF")
  return()
endif()

# Ends the search: an error where CUDA was asked for, else a line that says why there is none.
macro(qvlmem_no_cuda)
  if(QVLMEM_CUDA STREQUAL "ON")
    message(FATAL_ERROR "QVLMEM_CUDA=ON: " ${ARGN})
  endif()
  message(STATUS "Without CUDA kernels: " ${ARGN})
  set(QVLMEM_CUDA_VERSION "")
  return()
endmacro()

if(NOT QVLMEM_KERNELS_ONLY AND NOT QVLMEM_TORCH_CUDA)
  qvlmem_no_cuda("PyTorch ${QVLMEM_TORCH_VERSION} at ${QVLMEM_TORCH_ROOT} is a build without CUDA")
elseif(QVLMEM_KERNELS_ONLY AND NOT QVLMEM_CUDA STREQUAL "ON")
  qvlmem_no_cuda("without PyTorch there is no version to match (-DQVLMEM_CUDA=ON takes any)")
endif()

# The toolkit: CMake's module asks its nvcc. A compiler that was named says which toolkit is meant.
set(_qvlmem_compiler "${CMAKE_CUDA_COMPILER}")
if(NOT _qvlmem_compiler)
  set(_qvlmem_compiler "$ENV{CUDACXX}")
endif()
if(QVLMEM_CUDA_ROOT)
  if(NOT EXISTS ${QVLMEM_CUDA_ROOT}/bin/nvcc)
    qvlmem_no_cuda("QVLMEM_CUDA_ROOT=${QVLMEM_CUDA_ROOT} has no bin/nvcc")
  endif()
  set(CUDAToolkit_ROOT ${QVLMEM_CUDA_ROOT})
elseif(_qvlmem_compiler MATCHES "nvcc$")
  find_program(_qvlmem_nvcc ${_qvlmem_compiler} NO_CACHE REQUIRED)
  file(REAL_PATH ${_qvlmem_nvcc} _qvlmem_nvcc)
  cmake_path(GET _qvlmem_nvcc PARENT_PATH CUDAToolkit_ROOT)
  cmake_path(GET CUDAToolkit_ROOT PARENT_PATH CUDAToolkit_ROOT)
endif()
find_package(CUDAToolkit QUIET)
if(NOT CUDAToolkit_FOUND)
  qvlmem_no_cuda("no CUDA toolkit (-DQVLMEM_CUDA_ROOT=FOLDER names one)")
endif()
list(GET CUDAToolkit_INCLUDE_DIRS 0 _qvlmem_include)
file(STRINGS ${_qvlmem_include}/cuda_runtime_api.h _qvlmem_line REGEX "#define CUDART_VERSION ")
string(REGEX MATCH "[0-9]+" QVLMEM_CUDART_VERSION "${_qvlmem_line}")
math(EXPR _qvlmem_major "${QVLMEM_CUDART_VERSION} / 1000")
math(EXPR _qvlmem_minor "${QVLMEM_CUDART_VERSION} % 1000 / 10")
set(QVLMEM_CUDA_VERSION ${_qvlmem_major}.${_qvlmem_minor})
set(_qvlmem_toolkit "the toolkit at ${CUDAToolkit_BIN_DIR} has CUDA ${QVLMEM_CUDA_VERSION}")
if(NOT "${CUDAToolkit_VERSION_MAJOR}.${CUDAToolkit_VERSION_MINOR}" STREQUAL QVLMEM_CUDA_VERSION)
  qvlmem_no_cuda("${_qvlmem_toolkit} in ${_qvlmem_include}, but its nvcc is ${CUDAToolkit_VERSION}")
endif()
if(NOT QVLMEM_KERNELS_ONLY AND NOT QVLMEM_CUDA_VERSION STREQUAL QVLMEM_TORCH_CUDA)
  set(_qvlmem_toolkit "${_qvlmem_toolkit}, PyTorch ${QVLMEM_TORCH_VERSION} has ${QVLMEM_TORCH_CUDA}")
  if(QVLMEM_CUDA STREQUAL "AUTO" OR NOT QVLMEM_TORCH_CUDA MATCHES "^${_qvlmem_major}[.]")
    qvlmem_no_cuda("${_qvlmem_toolkit}")
  endif()
  message(WARNING "${_qvlmem_toolkit}: the same major version, which works; its own would be better")
endif()

# The compiler. All of this must be known before the language is enabled. Another toolkit's headers may lie in
# /usr/local/include, which the compilers search before the toolkit that they are told of.
set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # linked by qvlmem_cudart: the shared one, which PyTorch uses
set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
if(NOT _qvlmem_compiler)
  set(_qvlmem_compiler ${CUDAToolkit_NVCC_EXECUTABLE})
  set(ENV{CUDACXX} ${_qvlmem_compiler})
endif()
if(_qvlmem_compiler MATCHES "clang")
  unset(CMAKE_CUDA_HOST_COMPILER)
  string(APPEND CMAKE_CUDA_FLAGS " --no-offload-new-driver -Wno-unknown-cuda-version -isystem \"${_qvlmem_include}\"")
endif()
if(QVLMEM_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    qvlmem_no_cuda("${_qvlmem_toolkit}, but ${_qvlmem_compiler} does not work here")
  endif()
endif()

# Code for the first architecture of each major version that this toolkit knows, which serves the later ones of that
# version (SM75, SM86 and SM89 on top take two thirds more time and bytes); PTX of the first, from which a driver
# can compile for every later GPU, and of the last.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  if(_qvlmem_compiler MATCHES "clang")
    set(_qvlmem_known 61 70 80 90)
  else()
    execute_process(COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} --list-gpu-arch OUTPUT_VARIABLE _qvlmem_known
      COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX MATCHALL "[0-9]+" _qvlmem_known "${_qvlmem_known}")
  endif()
  set(_qvlmem_major 0)
  foreach(_qvlmem_arch 61 70 75 80 90 100 120)
    math(EXPR _qvlmem_next "${_qvlmem_arch} / 10")
    if(_qvlmem_arch IN_LIST _qvlmem_known AND NOT _qvlmem_next EQUAL _qvlmem_major)
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${_qvlmem_arch}-real)
      set(_qvlmem_major ${_qvlmem_next})
    endif()
  endforeach()
  list(TRANSFORM CMAKE_CUDA_ARCHITECTURES REPLACE "-real" "" AT 0 -1)
endif()

# CMake has one set of these for all languages: clang's would have g++ do without precompiled headers.
set(_qvlmem_pch "${CMAKE_PCH_EXTENSION}" "${CMAKE_PCH_PROLOGUE}")
enable_language(CUDA)
list(GET _qvlmem_pch 0 CMAKE_PCH_EXTENSION)
list(GET _qvlmem_pch 1 CMAKE_PCH_PROLOGUE)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(QVLMEM_WITH_CUDA TRUE)
message(STATUS "CUDA ${QVLMEM_CUDA_VERSION}: ${CMAKE_CUDA_COMPILER_ID} ${CMAKE_CUDA_COMPILER_VERSION}, "
  "for SM ${CMAKE_CUDA_ARCHITECTURES}")

add_library(qvlmem_cudart INTERFACE)
target_include_directories(qvlmem_cudart SYSTEM INTERFACE ${_qvlmem_include})
target_compile_definitions(qvlmem_cudart INTERFACE QVLMEM_CUDART_VERSION=${QVLMEM_CUDART_VERSION})
if(QVLMEM_KERNELS_ONLY)
  target_link_libraries(qvlmem_cudart INTERFACE ${CUDA_CUDART})
else()  # the one that PyTorch uses
  qvlmem_add_torch_cuda(FALSE)
endif()

add_library(qvlmem_cuda_flags INTERFACE)
target_link_libraries(qvlmem_cuda_flags INTERFACE qvlmem_cudart)
target_include_directories(qvlmem_cuda_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_features(qvlmem_cuda_flags INTERFACE cuda_std_17)
# Same bytes on every back end: no contraction into FMA.
if(CMAKE_CUDA_COMPILER_ID STREQUAL "Clang")
  target_compile_options(qvlmem_cuda_flags INTERFACE -ffp-contract=off ${QVLMEM_WARNINGS})
  # nvcc defines it, and CUB goes by it.
  string(REGEX REPLACE "(-real|-virtual)" "" _qvlmem_list "${CMAKE_CUDA_ARCHITECTURES}")
  list(TRANSFORM _qvlmem_list APPEND 0)
  list(JOIN _qvlmem_list "," _qvlmem_list)
  target_compile_definitions(qvlmem_cuda_flags INTERFACE __CUDA_ARCH_LIST__=${_qvlmem_list})
else()
  target_compile_options(qvlmem_cuda_flags INTERFACE --fmad=false --expt-relaxed-constexpr
    -Xcompiler=-ffp-contract=off "-Xcompiler=$<JOIN:${QVLMEM_WARNINGS},$<COMMA>>"
    $<$<BOOL:${QVLMEM_WERROR}>:--Werror=all-warnings>)
endif()
