# SPDX-License-Identifier: Apache-2.0
# The target qvlmem_torch over the include and lib folders of a PyTorch (a wheel or an unpacked LibTorch),
# and its version as QVLMEM_TORCH_VERSION. Where there is none, QVLMEM_TORCH_ERROR says why.
# QVLMEM_TORCH_CUDA is the CUDA version that it is built with ("12.6"), empty without; then
# qvlmem_add_torch_cuda() makes the target qvlmem_torch_cuda, its CUDA libraries and those of NVIDIA's beside it.
# PyTorch's own find_package(Torch) is not used: for a wheel with CUDA it asks for a CUDA toolkit, which a
# CPU build of this library does without. An installed qvlmemConfig.cmake uses this file, too.
set(QVLMEM_TORCH_ERROR "")
if(TARGET qvlmem_torch)
  return()
endif()

set(QVLMEM_PYTHON "" CACHE FILEPATH
  "The Python whose PyTorch to build against (default: Python_EXECUTABLE, which pip's build sets, else python3)")
set(QVLMEM_TORCH_ROOT "" CACHE PATH "The folder with PyTorch's include/ and lib/ (default: ask QVLMEM_PYTHON)")

if(NOT QVLMEM_TORCH_ROOT)
  set(_qvlmem_python ${QVLMEM_PYTHON})
  if(NOT _qvlmem_python)
    set(_qvlmem_python ${Python_EXECUTABLE})
  endif()
  if(NOT _qvlmem_python)
    find_program(_qvlmem_python python3 NO_CACHE)
  endif()
  execute_process(
    COMMAND ${_qvlmem_python} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE QVLMEM_TORCH_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE _qvlmem_status ERROR_QUIET)
  if(NOT _qvlmem_status EQUAL 0)
    set(QVLMEM_TORCH_ERROR "no PyTorch: '${_qvlmem_python}' cannot import torch. "
      "Give -DQVLMEM_PYTHON=PYTHON or -DQVLMEM_TORCH_ROOT=FOLDER; in a checkout, tools/build installs one")
    string(CONCAT QVLMEM_TORCH_ERROR ${QVLMEM_TORCH_ERROR})
    return()
  endif()
endif()
foreach(_qvlmem_file include/torch/library.h lib/libtorch_cpu.so lib/libc10.so)
  if(NOT EXISTS ${QVLMEM_TORCH_ROOT}/${_qvlmem_file})
    set(QVLMEM_TORCH_ERROR "QVLMEM_TORCH_ROOT=${QVLMEM_TORCH_ROOT} lacks ${_qvlmem_file}")
    return()
  endif()
endforeach()

# Since 2.9 the numbers stand in torch/headeronly/version.h.
set(QVLMEM_TORCH_VERSION "")
foreach(_qvlmem_file torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
  if(NOT QVLMEM_TORCH_VERSION AND EXISTS ${QVLMEM_TORCH_ROOT}/include/${_qvlmem_file})
    file(STRINGS ${QVLMEM_TORCH_ROOT}/include/${_qvlmem_file} _qvlmem_lines REGEX "define TORCH_VERSION_[MP]")
    string(REGEX MATCHALL "TORCH_VERSION_[A-Z]+ [0-9]+" _qvlmem_lines "${_qvlmem_lines}")
    string(REGEX REPLACE "TORCH_VERSION_[A-Z]+ ([0-9]+)" "\\1" _qvlmem_lines "${_qvlmem_lines}")
    list(JOIN _qvlmem_lines "." QVLMEM_TORCH_VERSION)
  endif()
endforeach()
if(QVLMEM_TORCH_VERSION VERSION_LESS 2.7)
  set(QVLMEM_TORCH_ERROR
    "PyTorch ${QVLMEM_TORCH_VERSION} at ${QVLMEM_TORCH_ROOT}: 2.7 is the oldest that is supported")
  return()
endif()

add_library(qvlmem_torch INTERFACE IMPORTED)
target_include_directories(qvlmem_torch SYSTEM INTERFACE
  ${QVLMEM_TORCH_ROOT}/include ${QVLMEM_TORCH_ROOT}/include/torch/csrc/api/include)
target_link_libraries(qvlmem_torch INTERFACE
  ${QVLMEM_TORCH_ROOT}/lib/libtorch_cpu.so ${QVLMEM_TORCH_ROOT}/lib/libc10.so)

# at::parallel_for is a template over OpenMP: without the compiler's OpenMP it is a plain loop, silently. The
# runtime must be PyTorch's own, or torch.set_num_threads would not reach it. ThreadSanitizer does not
# understand libgomp, and clang does not compile for it: those builds keep the plain loop.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT QVLMEM_SANITIZE MATCHES "thread")
  target_compile_options(qvlmem_torch INTERFACE -fopenmp)
  if(EXISTS ${QVLMEM_TORCH_ROOT}/lib/libgomp.so.1)
    target_link_libraries(qvlmem_torch INTERFACE ${QVLMEM_TORCH_ROOT}/lib/libgomp.so.1)
  else()
    target_link_options(qvlmem_torch INTERFACE -fopenmp)
  endif()
endif()

# Since 18, clang names constrained templates otherwise than the g++ that PyTorch's libraries come from.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 18)
  target_compile_options(qvlmem_torch INTERFACE -fclang-abi-compat=17)
endif()
if(QVLMEM_TORCH_VERSION VERSION_LESS 2.9)
  target_compile_features(qvlmem_torch INTERFACE cxx_std_17)
else()
  target_compile_features(qvlmem_torch INTERFACE cxx_std_20)
endif()

set(QVLMEM_TORCH_CUDA "")
if(EXISTS ${QVLMEM_TORCH_ROOT}/version.py)  # a wheel
  file(STRINGS ${QVLMEM_TORCH_ROOT}/version.py _qvlmem_lines REGEX "^cuda")
  string(REGEX MATCH "[0-9]+[.][0-9]+" QVLMEM_TORCH_CUDA "${_qvlmem_lines}")
elseif(EXISTS ${QVLMEM_TORCH_ROOT}/build-version)  # LibTorch: 2.7.1+cu126
  file(STRINGS ${QVLMEM_TORCH_ROOT}/build-version _qvlmem_lines REGEX "[+]cu[0-9]+$")
  if(_qvlmem_lines)
    string(REGEX REPLACE ".*[+]cu([0-9]+)([0-9])$" "\\1.\\2" QVLMEM_TORCH_CUDA "${_qvlmem_lines}")
  endif()
endif()

# Makes the target. What it needs is loaded with whoever links it, used or not: a library without a run path relies on
# that. cuBLAS and the like: only where used, or, where `all` is true, in any case as well.
# Wheels of NVIDIA's libraries know no names without a version; LibTorch has them in its own folder.
function(qvlmem_add_torch_cuda all)
  set(libraries "")
  foreach(name cudart cublas cusparse)
    file(GLOB found ${QVLMEM_TORCH_ROOT}/../nvidia/*/lib/lib${name}.so.* ${QVLMEM_TORCH_ROOT}/lib/lib${name}[.-]*)
    if(NOT found)
      find_library(QVLMEM_LIB_${name} ${name} REQUIRED
        PATHS ${CUDAToolkit_LIBRARY_DIR} ENV CUDA_HOME /usr/local/cuda PATH_SUFFIXES lib64 lib)
      set(found ${QVLMEM_LIB_${name}})
    endif()
    list(GET found 0 found)
    file(REAL_PATH ${found} found)
    list(APPEND libraries ${found})
    if(name STREQUAL "cudart" AND NOT all)
      list(APPEND libraries -Wl,--as-needed)
    endif()
  endforeach()
  add_library(qvlmem_torch_cuda INTERFACE IMPORTED GLOBAL)
  target_link_libraries(qvlmem_torch_cuda INTERFACE qvlmem_torch -Wl,--push-state,--no-as-needed
    ${QVLMEM_TORCH_ROOT}/lib/libtorch_cuda.so ${QVLMEM_TORCH_ROOT}/lib/libc10_cuda.so ${libraries} -Wl,--pop-state)
endfunction()
