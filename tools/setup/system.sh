# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/build and tools/bench: compiler, CMake, Ninja and the headers, from Debian's packages where it may.

as_root=()
may_be_root() {
  if ((EUID == 0)); then return 0; fi
  if sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
    return 0
  fi
  return 1
}

has_header() {
  printf '#if !__has_include(<%s>)\n#error missing\n#endif\n' "$1" |
    "${CXX:-g++}" -x c++ -fsyntax-only -I.deps/usr/include - 2>/dev/null
}

has_compiler() {
  local major
  command -v "${CXX:-g++}" >/dev/null || return 1
  major=$("${CXX:-g++}" -dumpversion)
  if ((${major%%.*} < 12)); then say "warning: ${CXX:-g++} $major: 12 is the oldest that is tested"; fi
}

has_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | awk 'NR == 1 {print $3}')
  [[ -n $version && $(printf '3.25\n%s\n' "$version" | sort -V | head -n 1) == 3.25 ]]
}

# The Debian packages that stand for what is missing here, one a line.
missing_packages() {
  has_compiler || echo g++
  has_cmake || echo cmake
  command -v ninja >/dev/null || echo ninja-build
  if command -v "${CXX:-g++}" >/dev/null; then
    has_header hwy/highway.h || echo libhwy-dev
    has_header xxhash.h || echo libxxhash-dev
    has_header gtest/gtest.h || echo libgtest-dev
  else
    printf '%s\n' libhwy-dev libxxhash-dev libgtest-dev
  fi
  if ((need_python)) && ! has_venv && ! find_python >/dev/null; then printf '%s\n' python3 python3-venv; fi
}

apt_install() {
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  "${apt[@]}" install --no-install-recommends "$@" </dev/null && return 0
  say "updating the package lists, then trying again"
  "${apt[@]}" update </dev/null && "${apt[@]}" install --no-install-recommends "$@" </dev/null
}

# Without root: headers and libraries, which need no installation, go to .deps.
unpack_into_deps() {
  local package folder
  folder=$(mktemp -d)
  for package in "$@"; do
    case $package in
      lib*-dev)
        say "unpacking $package into .deps (no root here to install it)"
        (cd "$folder" && apt-get -q download "$package" </dev/null >&2) &&
          dpkg -x "$folder/$package"_*.deb .deps || say "could not download $package"
        ;;
    esac
  done
  rm -rf "$folder"
}

install_system() {
  local missing
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then return 0; fi
  say "missing: ${missing[*]}"
  if ! command -v apt-get >/dev/null; then
    say "no apt-get here: install these, or what your system calls them"
  elif may_be_root; then
    say "installing them from Debian's packages"
    unlocked apt_install "${missing[@]}" >&2 || say "apt-get failed"
    if ! command -v valgrind >/dev/null; then
      unlocked apt_install valgrind >&2 || say "no valgrind: tools/instructions goes without, nothing else needs it"
    fi
  else
    unpack_into_deps "${missing[@]}"
  fi
}

# After the virtual environment is there (it may bring cmake and ninja): what is still missing ends it.
require_system() {
  local missing
  mapfile -t missing < <(need_python=0 missing_packages)
  if ((${#missing[@]} == 0)); then return 0; fi
  die "still missing: ${missing[*]} (Debian's names). As root: apt-get install ${missing[*]}"
}
