# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/build: the compiler and the CUDA toolkit of PyTorch's own CUDA version, out of pip wheels.

# Makes $toolkit (.deps/cuda-VERSION) hold what a toolkit's folder holds, of what $cuda_requirements lists and of the
# headers and runtime that came with the PyTorch in $venv. A stamp makes the next time quick. False where it cannot.
make_toolkit() {
  local site=$1 sum part wheels=$toolkit/wheels folder item began=$SECONDS
  sum=$(cat "$cuda_requirements" tools/setup/cuda.sh tools/cuda/* <(echo "$root $site") | sha256sum)
  if [[ -f $toolkit/stamp && $(<"$toolkit/stamp") == "$sum" ]]; then return 0; fi
  say "making $toolkit from pip's wheels"
  rm -rf "$toolkit"
  mkdir -p "$wheels" "$toolkit"/{bin,include,lib,nvvm}
  unlocked install_packages --no-deps --target "$wheels" -r "$cuda_requirements" || return 1
  # CUDA 12's wheels have a folder for each component, CUDA 13's one for all.
  for folder in "$wheels"/nvidia/*/; do
    for part in bin include lib nvvm; do
      if [[ -d $folder$part ]]; then cp -al "$folder$part/." "$toolkit/$part/"; fi
    done
  done
  for folder in "$site"/nvidia/{cuda_runtime,cublas,cusolver,cusparse,cu[0-9]*}/include; do
    for item in "$folder"/[!_]*; do
      if [[ -e $item && ! -e $toolkit/include/${item##*/} ]]; then ln -s "$item" "$toolkit/include/"; fi
    done
  done
  for item in "$site"/nvidia/{cuda_runtime,cu[0-9]*}/lib/libcuda{rt,devrt}*; do
    [[ -e $item ]] || continue
    ln -sf "$item" "$toolkit/lib/"
    if [[ $item == */libcudart.so.* ]]; then ln -sf "$item" "$toolkit/lib/libcudart.so"; fi
  done
  ln -s lib "$toolkit/lib64"
  # What the wheels of CUDA 12 lack; clang and CMake ask for it.
  if [[ ! -e $toolkit/bin/nvcc ]]; then
    sed -n 's/^nvidia-cuda-nvcc-cu12==//p' "$cuda_requirements" >"$toolkit/version.txt"
    cp tools/cuda/nvcc "$toolkit/bin/"
    cp tools/cuda/fatbinary "$toolkit/bin/fatbinary.py"
    printf '#!/bin/sh\nexec "%s" "$0.py" "$@"\n' "$root/$venv/bin/python" >"$toolkit/bin/fatbinary"
  fi
  find "$toolkit/bin" "$toolkit/nvvm/bin" -type f -exec chmod +x {} + 2>/dev/null
  for item in bin/ptxas bin/cuobjdump include/cuda_runtime_api.h lib/libcudart.so nvvm/libdevice; do
    if [[ ! -e $toolkit/$item ]]; then
      say "the wheels have no $item"
      return 1
    fi
  done
  echo "$sum" >"$toolkit/stamp"
  say "made in $((SECONDS - began)) s"
}

# Installs what `tools/build --cuda` needs, and appends to `defines` what CMake is to know. Nothing where the caller
# named a compiler (-D CMAKE_CUDA_COMPILER=...): its toolkit is used then.
install_cuda() {
  local site version define
  for define in ${defines[@]+"${defines[@]}"}; do
    if [[ $define == -DCMAKE_CUDA_COMPILER[:=]* ]]; then return 0; fi
  done
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  version=$(sed -n "s/^cuda.*'\([0-9.]*\)'.*/\1/p" "$site/torch/version.py")
  if [[ $version != "$cuda_version" ]]; then
    die "the PyTorch in $venv is built with CUDA ${version:-none}; $cuda_requirements is for $cuda_version." \
      "With a toolkit of your own: tools/build --cuda -D CMAKE_CUDA_COMPILER=NVCC"
  fi
  toolkit=.deps/cuda-$cuda_version
  if make_toolkit "$site"; then
    defines+=("-DQVLMEM_CUDA_ROOT=$root/$toolkit")
    if [[ -e $toolkit/nvvm/bin/cicc ]]; then
      defines+=("-DCMAKE_CUDA_COMPILER=$root/$toolkit/bin/nvcc")
      return 0
    fi
    if ! command -v clang++-19 >/dev/null; then
      say "installing clang-19"
      { command -v apt-get >/dev/null && may_be_root && unlocked apt_install clang-19 >&2; } ||
        die "clang-19 is missing, which compiles for SM61 (Debian's name). As root: apt-get install clang-19." \
          "With a toolkit of your own: tools/build --cuda -D CMAKE_CUDA_COMPILER=NVCC"
    fi
    defines+=("-DCMAKE_CUDA_COMPILER=clang++-19")
    return 0
  fi
  use_system_nvcc
}

# Where the wheels are not to be had: an nvcc of the same major version serves, for a runtime is made for all of its
# major version. CMake says which it is.
use_system_nvcc() {
  local nvcc release
  for nvcc in ${CUDACXX:+"$CUDACXX"} nvcc /usr/local/cuda/bin/nvcc; do
    nvcc=$(command -v "$nvcc") || continue
    release=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
    if [[ ${release%%.*} == "${cuda_version%%.*}" ]]; then
      say "warning: no wheels of CUDA $cuda_version; using $nvcc, which is $release"
      defines+=("-DCMAKE_CUDA_COMPILER=$nvcc")
      return 0
    fi
  done
  die "the wheels that $cuda_requirements lists could not be installed, and there is no nvcc ${cuda_version%%.*}.x here"
}
