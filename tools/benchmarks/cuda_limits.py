#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the CUDA kernels ask of a GPU: bytes moved and PTX instructions an element, against a GTX 1080 Ti's.

Runs cuda_kernels on a simulated device (QVLMEM_CUDA_SIM names the folder of its libcudart), whose log has the
instructions that threads executed. With a GPU and without that variable: times beside a copy instead.

usage: cuda_limits.py PROGRAM [ELEMENTS] [--markdown]
"""

import os
import re
import subprocess
import sys

BANDWIDTH = 484e9  # bytes/s, GTX 1080 Ti (NVIDIA's data sheet)
INSTRUCTIONS = 3584 * 1.582e9  # lanes times boost clock
CASE = re.compile(r'case (.+?) \| (\d+) \| (\d+) \| (\d+)(?: \| ([\d.]+) \| ([\d.]+))?$')
LAUNCH = re.compile(r'simulator: launch of .*?: (\d+) thread instructions')


def environment():
    simulator = os.environ.get('QVLMEM_CUDA_SIM')
    if not simulator:
        return dict(os.environ)
    library = os.path.join(os.path.abspath(simulator), 'libcudart.so.12')
    return os.environ | {'LD_LIBRARY_PATH': os.path.dirname(library), 'LD_PRELOAD': library, 'QVLMEM_SIM_VERBOSE': '1'}


def cases(program, elements):
    result = subprocess.run([program, elements], env=environment(), stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        sys.exit(f'{program}: exit code {result.returncode}: {result.stderr.strip().splitlines()[-1:]}')
    found = []
    for line in result.stderr.splitlines():
        if match := CASE.match(line):
            name, count, read, written, ours, copy = match.groups()
            found.append({'name': name, 'elements': int(count), 'bytes': int(read) + int(written),
                          'instructions': 0, 'launches': 0, 'seconds': ours and float(ours), 'copy': copy and float(copy)})
        elif (match := LAUNCH.match(line)) and found:
            found[-1]['instructions'] += int(match[1])
            found[-1]['launches'] += 1
    return found


def limits(case):
    memory = case['bytes'] / case['elements'] / BANDWIDTH
    arithmetic = case['instructions'] / case['elements'] / INSTRUCTIONS
    copy = 8 / BANDWIDTH
    return [case['name'], f"{case['launches']}", f"{case['bytes'] / case['elements']:.2f}",
            f"{case['instructions'] / case['elements']:.1f}", f'{memory / copy:.2f}', f'{arithmetic / copy:.2f}',
            'memory' if memory >= arithmetic else 'instructions']


def times(case):
    return [case['name'], f"{1e3 * case['seconds']:.3f}", f"{case['bytes'] / case['seconds'] / 1e9:.0f}",
            f"{8 * case['elements'] / case['copy'] / 1e9:.0f}",
            f"{case['bytes'] / case['seconds'] / (8 * case['elements'] / case['copy']):.2f}", f"{case['seconds'] / case['copy']:.2f}"]


def main():
    arguments = [a for a in sys.argv[1:] if a != '--markdown']
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    found = cases(arguments[0], arguments[1] if len(arguments) > 1 else str(1 << 24))
    measured = found and found[0]['seconds'] is not None
    header = (['kernels', 'ms', 'GB/s moved', 'GB/s of the copy', 'of its bandwidth', 'x copy'] if measured else
              ['kernels', 'launches', 'bytes an element', 'instructions an element', 'x copy by memory',
               'x copy by instructions', 'limited by'])
    rows = [times(case) if measured else limits(case) for case in found]
    if '--markdown' in sys.argv:
        print('# What the CUDA kernels ask of a GPU\n\nPrinted by `tools/bench cuda --markdown`; benchmarks.md says how to '
              'read it.\n')
        print(*('| ' + ' | '.join(row) + ' |' for row in [header, ['---'] + ['---:'] * (len(header) - 1), *rows]), sep='\n')
        return
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for row in [header, *rows]:
        print('  '.join(cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))))


if __name__ == '__main__':
    main()
