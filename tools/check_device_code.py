#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the device code in a library: the architectures it has code for, and what each kernel takes.

Every kernel must be there for every architecture, with at most 255 registers a thread and 48 KiB of static shared
memory a block (Pascal's limits; later architectures are held to them, too). For those that --no-stack names, no
kernel may have a stack frame: that is where spilled registers and arrays that are indexed at run time go.

Reads what cuobjdump prints (the CUDA toolkit's; in the wheel nvidia-cuda-cuobjdump).
Exit codes: 0 in order, 1 broken rules (one a line), 2 wrong usage or no device code to be read.
"""

import argparse
import collections
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAX_REGISTERS = 255
MAX_SHARED = 48 * 1024
# What the runtime keeps for itself in each block, in the figures of SM90 and later.
RESERVED_SHARED = 1024

PART = re.compile(r'^Fatbin (elf|ptx) code:')
ARCHITECTURE = re.compile(r'^arch = sm_(\d+)')
FUNCTION = re.compile(r'^ Function (\S+):$')
USAGE = re.compile(r'^\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)')


def parse(listing):
    """From cuobjdump's text: {architecture: {kernel: (registers, stack, shared)}}, the architectures of PTX."""
    kernels, ptx = collections.defaultdict(dict), set()
    part = architecture = function = None
    for line in listing.splitlines():
        if match := PART.match(line):
            part = match.group(1)
        elif match := ARCHITECTURE.match(line):
            architecture = int(match.group(1))
            if part == 'ptx':
                ptx.add(architecture)
        elif match := FUNCTION.match(line):
            function = match.group(1)
        elif (match := USAGE.match(line)) and function:
            registers, stack, shared, local = map(int, match.groups())
            if architecture >= 90:
                shared = max(0, shared - RESERVED_SHARED)
            kernels[architecture][function] = registers, stack + local, shared
            function = None
    return dict(kernels), ptx


def check(kernels, ptx, options):
    """The rules that are broken, in words."""
    for architecture in sorted(set(options.sass) - set(kernels)):
        yield f'no code for sm_{architecture}'
    for architecture in sorted(set(options.ptx) - ptx):
        yield f'no PTX for compute_{architecture}'
    every = set().union(*kernels.values())
    for architecture, usage in sorted(kernels.items()):
        for kernel in sorted(every - set(usage)):
            yield f'sm_{architecture} lacks {kernel}'
        for kernel, (registers, stack, shared) in sorted(usage.items()):
            if registers > MAX_REGISTERS:
                yield f'sm_{architecture} {kernel}: {registers} registers, {MAX_REGISTERS} is the most'
            if shared > MAX_SHARED:
                yield f'sm_{architecture} {kernel}: {shared} bytes of shared memory, {MAX_SHARED} is the most'
            if stack and architecture in options.no_stack:
                yield f'sm_{architecture} {kernel}: {stack} bytes of stack: spilled registers, or an array'


def report(kernels, ptx):
    for architecture, usage in sorted(kernels.items()):
        registers, stack, shared = (max(column) for column in zip(*usage.values()))
        code = f'sm_{architecture}' + (' and PTX' if architecture in ptx else '')
        print(f'{code:15}: {len(usage)} kernels; at most {registers} registers, {shared} bytes of shared '
              f'memory, {stack} bytes of stack')


def find_cuobjdump():
    """That of the toolkit which tools/build made, else the one on the search path."""
    made = sorted(ROOT.glob('.deps/cuda-*/bin/cuobjdump'))
    return str(made[-1]) if made else 'cuobjdump'


def main():
    numbers = {'type': lambda text: [int(part) for part in re.findall(r'\d+', text)], 'default': [],
               'metavar': 'LIST'}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('library', type=pathlib.Path)
    parser.add_argument('--sass', help='architectures that must have code, as 61,75', **numbers)
    parser.add_argument('--ptx', help='architectures that must have PTX', **numbers)
    parser.add_argument('--no-stack', help='architectures whose kernels may have no stack frame', **numbers)
    parser.add_argument('--cuobjdump', metavar='PROGRAM', help='default: of .deps/, else on the search path')
    options = parser.parse_args()
    try:
        done = subprocess.run([options.cuobjdump or find_cuobjdump(), '--dump-resource-usage', options.library],
                              capture_output=True, text=True)
    except OSError as error:
        parser.error(f'cuobjdump does not run: {error}')
    kernels, ptx = parse(done.stdout)
    if done.returncode or not kernels:
        parser.error(f'no device code could be read: {(done.stderr or done.stdout).strip()}')
    broken = list(check(kernels, ptx, options))
    for line in broken:
        print(line)
    report(kernels, ptx)
    print(f'device code: {sum(map(len, kernels.values()))} kernels checked, {len(broken)} rules broken')
    return 1 if broken else 0


if __name__ == '__main__':
    sys.exit(main())
