# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/build and tools/bench: finds a Python that is supported and makes a virtual environment with it.

newest_minor=13

# True where $1 runs, is CPython 3.MIN to 3.13 and can make a virtual environment (by itself or by uv).
python_works() {
  "$1" -c "import sys, venv
ok = sys.implementation.name == 'cpython' and (3, $oldest_minor) <= sys.version_info[:2] <= (3, $newest_minor)
try:
    import ensurepip
except ImportError:
    ok = ok and len(sys.argv) > 1
sys.exit(not ok)" ${uv:+uv} >/dev/null 2>&1
}

# Prints the interpreter to use: QVLMEM_PYTHON, else the first one that works.
find_python() {
  local candidate
  for candidate in ${QVLMEM_PYTHON:+"$QVLMEM_PYTHON"} python3 python3.12 python3.11 python3.13 \
    python3.10 /usr/bin/python3 "${HOME:-/}"/.pyenv/versions/3.1[0-3].*/bin/python; do
    if python_works "$candidate"; then
      echo "$candidate"
      return 0
    fi
    if [[ $candidate == "${QVLMEM_PYTHON:-}" ]]; then
      say "QVLMEM_PYTHON=$candidate is no CPython 3.$oldest_minor to 3.$newest_minor with venv"
      return 1
    fi
  done
  return 1
}

find_uv() { if uv --version >/dev/null 2>&1; then echo uv; fi; }

# True where $venv is there, works and has a Python that is supported.
has_venv() {
  [[ -x $venv/bin/python ]] && "$venv/bin/python" -c "import sys
sys.exit(not (3, $oldest_minor) <= sys.version_info[:2] <= (3, $newest_minor))" 2>/dev/null
}

make_venv() {
  local python
  if has_venv; then return 0; fi
  rm -rf "$venv"
  python=$(find_python) ||
    die "no Python here is supported: CPython 3.$oldest_minor to 3.$newest_minor with its venv module" \
      "(Debian: python3 python3-venv). QVLMEM_PYTHON names another one"
  say "making $venv with $python"
  if [[ -n $uv ]]; then
    uv venv -q --seed --python "$("$python" -c 'import sys; print(sys.executable)')" "$venv" ||
      "$python" -m venv "$venv"
  else
    "$python" -m venv "$venv"
  fi
}

# Installs with uv (25 s where pip takes 100), or pip where that fails.
install_packages() {
  local python=$venv/bin/python index
  if [[ -z $uv ]]; then
    "$python" -m pip install -q uv >&2 || say "no uv to be had; using pip"
  fi
  index=$("$python" -m pip config get global.index-url 2>/dev/null || true)
  index=${PIP_INDEX_URL:-$index}
  if [[ -n $index && -z ${UV_DEFAULT_INDEX:-} ]]; then export UV_DEFAULT_INDEX=$index; fi
  if [[ -n $uv ]]; then
    uv pip install -q --python "$python" "$@" >&2 && return 0
  elif "$python" -m uv --version >/dev/null 2>&1; then
    "$python" -m uv pip install -q --python "$python" "$@" >&2 && return 0
  fi
  "$python" -m pip install -q --progress-bar off "$@" >&2
}

# Brings $venv to what $requirements asks for. A stamp makes the next time quick.
install_venv() {
  local stamp=$venv/qvlmem-requirements.sha256 sum began=$SECONDS
  make_venv
  sum=$(cat tools/requirements-common.txt "$requirements" | sha256sum)
  if [[ -f $stamp && $(<"$stamp") == "$sum" ]]; then return 0; fi
  say "installing $requirements into $venv (the first time fetches some GB)"
  if unlocked install_packages -r "$requirements"; then
    echo "$sum" >"$stamp"
    say "installed in $((SECONDS - began)) s"
  elif "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    say "warning: not all of $requirements could be installed; going on, as PyTorch is there"
  else
    die "PyTorch could not be installed into $venv. Without it: tools/build --kernels-only"
  fi
}

# cmake and ninja from PyPI, where Debian's could not be installed. In .venv, whose bin/ is searched.
install_build_tools() {
  local wanted=()
  PATH=$root/$venv/bin:$PATH
  if ! has_cmake; then wanted+=(cmake); fi
  if ! command -v ninja >/dev/null; then wanted+=(ninja); fi
  if ((${#wanted[@]} == 0)); then return 0; fi
  say "installing ${wanted[*]} into $venv"
  unlocked install_packages "${wanted[@]}" || true
}

# Makes python/ importable from $venv, and has it use the library of this build.
link_package() {
  local site
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$venv/bin/python" -c 'import sys
print(sys.argv[1])
print("import os; os.environ.setdefault(\"QVLMEM_LIBRARY\", " + repr(sys.argv[2]) + ")")' \
    "$root/python" "$root/$build/lib/libqvlmem.so" >"$site/qvlmem-checkout.pth"
}
