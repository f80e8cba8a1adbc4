#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the compiled kernels (an optimised build) for symbols that they must not have.

The vector sources are compiled for AVX2 and AVX-512. An inline function that such an object emits is a
weak symbol, and the linker may choose it for everybody: a crash on a CPU without that ISA. And kernels
allocate nothing, throw nothing, print nothing and start no thread, so they ask nobody for it. Those on CUDA
wait for nothing and set nothing up, either.

usage: check_objects.py BUILD_FOLDER    exit codes: 0 in order, 1 symbols found, 2 no objects there
"""

import pathlib
import re
import subprocess
import sys

# The only weak symbol that g++ puts into every object with exception tables; data, the same in all.
HARMLESS = {'DW.ref.__gxx_personality_v0'}
BANNED = re.compile(
    r'^(_Zn[wa]|_Zd[la]|malloc|calloc|realloc|free|aligned_alloc|posix_memalign'
    r'|__cxa_throw|__cxa_allocate_exception|_ZSt\d+__throw_'
    r'|pthread_|_ZNSt6thread|f?printf|f?puts|fopen|fwrite|open|read|write|_ZSt4c(out|err)'
    r'|cuda(Malloc|Free|Host|Memcpy$|Memset$|\w*Synchronize|\w*Create|\w*Destroy|\w*Reset|SetDevice))')


def symbols(path, *flags):
    listing = subprocess.run(['nm', '--format=posix', *flags, str(path)],
                             check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) >= 2 and not line.endswith(':'):
            yield fields[0].split('@')[0], fields[1]


def check(folder):
    vector = sorted(folder.glob('kernels/CMakeFiles/qvlmem_simd_*.dir/**/*.o'))
    every = sorted(folder.glob('kernels/CMakeFiles/**/*.o'))
    broken = []
    for path in vector:
        for name, kind in symbols(path, '--defined-only'):
            if kind in 'WVu' and name not in HARMLESS and '/qvlmem_simd_portable.dir/' not in str(path):
                broken.append(f'{path.relative_to(folder)}: weak symbol {name}')
    for path in every:
        for name, _ in symbols(path, '--undefined-only'):
            if BANNED.match(name):
                broken.append(f'{path.relative_to(folder)}: asks for {name}')
    return vector, every, broken


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    vector, every, broken = check(pathlib.Path(sys.argv[1]).resolve())
    if not vector:
        print(f'{sys.argv[1]}: no vector objects there: is it the folder of a build?', file=sys.stderr)
        return 2
    for line in broken:
        print(line)
    print(f'objects: {len(every)} checked ({len(vector)} of them vector code), {len(broken)} bad symbols')
    return 1 if broken else 0


if __name__ == '__main__':
    sys.exit(main())
