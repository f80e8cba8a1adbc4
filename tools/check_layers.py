#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the layers of the source tree: who includes whom, unique file names, a few rules of form.

Reads files only, needs no build and nothing but Python. ctest runs it; by hand: tools/check_layers.py.
Exit codes: 0 in order, 1 broken rules (one a line, as PATH:LINE: RULE), 2 wrong usage.
"""

import argparse
import collections
import os
import pathlib
import re
import subprocess
import sys

CXX = {'.h', '.cpp', '.cu', '.cuh'}
SOURCE = CXX | {'.py', '.sh', '.cmake'}
MAX_LINES = 400
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
UNFINISHED = re.compile(r'\b(TODO|FIXME|XXX|HACK)\b')
# Names that tools prescribe, so that many folders have one.
SHARED_NAMES = {'CMakeLists.txt', 'README.md', '__init__.py', '__main__.py', 'conftest.py'}

TORCH = ('ATen/', 'c10/', 'torch/', 'caffe2/')
PROJECT = ('kernels/', 'ops/', 'registration/', 'cpp_tests/', 'torchscript_tests/', 'tools/', 'qvlmem/')
# What kernels/ does without: allocation, I/O, threads.
KERNEL_BANNED = {
    'deque', 'filesystem', 'fstream', 'functional', 'future', 'iostream', 'list', 'map', 'memory',
    'mutex', 'set', 'sstream', 'stdexcept', 'string', 'thread', 'unordered_map', 'unordered_set',
    'vector', 'cstdio', 'stdio.h',
}


# Headers that a build without CUDA lacks, and the names of the files that may include them.
CUDA_HEADER = re.compile(
    r'^(ATen/cuda/|c10/cuda/|cub/|thrust/|cuda/|cuda|cublas|cusolver|cusparse|curand)|(^|[_/])cuda\.h$|\.cuh$')
CUDA_FILE = re.compile(r'\.cuh?$|(^|_)cuda(_test)?\.(cpp|h)$|^(cuda|device)_\w+\.(cpp|h)$')


def tree_files(root):
    """Every file of the tree that git knows or would add; without git, every file outside builds."""
    try:
        listed = subprocess.run(
            ['git', '-C', str(root), 'ls-files', '-co', '--exclude-standard', '-z'],
            check=True, capture_output=True).stdout.decode().split('\0')
        if any(listed):
            return sorted(name for name in set(listed) if name and (root / name).is_file())
    except (OSError, subprocess.CalledProcessError):
        pass
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(('.', 'build', '__pycache__'))]
        found += [(pathlib.Path(folder) / name).relative_to(root).as_posix() for name in names]
    return sorted(found)


def allowed(path, include):
    """None where the file at `path` may include `include`, else the rule that forbids it."""
    parts = path.split('/')
    room = parts[0]
    target = include.split('/')
    if CUDA_HEADER.search(include):
        if not CUDA_FILE.search(parts[-1]):
            return 'a build without CUDA has no such header: only *_cuda.* files are for one with it'
        if include.endswith('.cuh') and not parts[-1].endswith(('.cu', '.cuh')):
            return 'device code is for .cu files'
        if room == 'kernels' and include.startswith('thrust/'):
            return 'thrust allocates, and kernels/ does not'
    is_torch = include.startswith(TORCH)
    is_project = include.startswith(PROJECT)
    if room == 'kernels':
        codec = parts[1]
        if is_torch:
            return 'kernels/ knows nothing of PyTorch'
        if include in KERNEL_BANNED:
            return f'kernels/ does not allocate, print or start threads, so it has no use for <{include}>'
        if is_project and target[0] != 'kernels':
            return 'kernels/ includes only kernels/'
        if is_project and target[1] not in {'base', codec} | ({'coding'} if codec != 'base' else set()):
            return f'kernels/{codec} may include kernels/base, kernels/coding and itself, no other codec'
    elif path.startswith('ops/qvlmem/'):
        if is_project and target[0] != 'qvlmem':
            return 'a public header includes only <qvlmem/...>, PyTorch and the standard library'
    elif room == 'ops':
        if path.startswith('ops/spill/') and is_torch:
            return 'ops/spill/ knows nothing of PyTorch'
        if is_project and target[0] not in {'kernels', 'ops', 'qvlmem'}:
            return 'ops/ includes only ops/ and kernels/'
    elif room == 'registration':
        if is_project and target[0] not in {'registration', 'ops', 'qvlmem'}:
            return 'registration/ includes only ops/'
    elif path.startswith('cpp_tests/kernels/'):
        if is_torch or (is_project and target[0] not in {'kernels', 'cpp_tests'}):
            return 'the tests of kernels/ include only kernels/ and need no PyTorch'
    elif room == 'torchscript_tests':
        if is_project and target[0] != 'torchscript_tests':
            return 'torchscript_tests/ know the library only as a file to load'
    return None


def check_includes(path, number, line, root):
    match = INCLUDE.match(line)
    if not match:
        return
    include = match.group(1) or match.group(2)
    rule = allowed(path, include)
    if rule:
        yield f'{path}:{number}: includes {include}: {rule}'
    if match.group(1) and not include.startswith(TORCH):
        if not ((root / include).is_file() or (root / path).parent.joinpath(include).is_file()):
            yield f'{path}:{number}: includes "{include}", which is no file of this tree'
        elif not include.startswith(PROJECT) and path.startswith(('kernels/', 'ops/', 'registration/')):
            yield f'{path}:{number}: includes "{include}": write the path from the root'


def check_cuda(path, lines):
    """Where device code lies, and that its users hold the version of the headers they found."""
    if path.endswith('.cu') and not (path.startswith('kernels/') and path.endswith('_cuda.cu')):
        yield f'{path}:1: device code is kernels/*/*_cuda.cu'
    includes = [match.group(1) or match.group(2) for match in map(INCLUDE.match, lines) if match]
    of_cuda = [include for include in includes if CUDA_HEADER.search(include)]
    if of_cuda and path.endswith(('.cpp', '.cu')):
        if not any(include.startswith('kernels/') for include in of_cuda):
            yield f'{path}:1: includes {of_cuda[0]}, but not kernels/base/cuda.h, which checks the CUDA version'


def check_source(path, root):
    text = (root / path).read_bytes()
    lines = text.decode('utf-8', 'replace').split('\n')
    if pathlib.PurePath(path).suffix in CXX:
        yield from check_cuda(path, lines)
    if 'SPDX-License-Identifier: Apache-2.0' not in '\n'.join(lines[:3]):
        yield f'{path}:1: the first lines lack SPDX-License-Identifier: Apache-2.0'
    if len(lines) - 1 > MAX_LINES:
        yield f'{path}:{len(lines) - 1}: more than {MAX_LINES} lines'
    for number, line in enumerate(lines, 1):
        if not line.isascii():
            yield f'{path}:{number}: not ASCII'
        if UNFINISHED.search(line) and not path.endswith('check_layers.py'):
            yield f'{path}:{number}: unfinished work is not left in the tree'
        if pathlib.PurePath(path).suffix in CXX:
            yield from check_includes(path, number, line, root)


def check_names(files):
    places = collections.defaultdict(list)
    for path in files:
        name = path.rsplit('/', 1)[-1]
        if pathlib.PurePath(name).suffix in SOURCE and name not in SHARED_NAMES:
            places[name].append(path)
    for name, paths in places.items():
        if len(paths) > 1:
            yield f'{paths[0]}:1: {name} is the name of several files: {", ".join(paths)}'


def check(root):
    files = tree_files(root)
    broken = list(check_names(files))
    checked = 0
    for path in files:
        suffix = pathlib.PurePath(path).suffix
        if suffix in SOURCE and not path.startswith(('docs/', 'data/', '.')):
            broken += check_source(path, root)
            checked += 1
    return checked, broken


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root', type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[1])
    arguments = parser.parse_args()
    if not (arguments.root / 'kernels').is_dir():
        parser.error(f'{arguments.root} has no kernels/')
    checked, broken = check(arguments.root)
    for line in broken:
        print(line)
    print(f'layers: {checked} sources checked, {len(broken)} rules broken')
    return 1 if broken or not checked else 0


if __name__ == '__main__':
    sys.exit(main())
