# SPDX-License-Identifier: Apache-2.0
"""The conditions that are measured, each in processes of its own: what the C library reads, it reads once."""

import json
import os
import subprocess
import sys

from qvlmem.commands import CommandError

# What is freed stays in the process, so that large outputs need no fresh pages; or glibc's defaults, with which
# every large output is mapped anew.
CONDITIONS = {
    'warm': {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(16 << 30)},
    'cold': {},
}
SPEEDUP = 1.7  # that several threads are to have over one
LARGE = 16 << 20  # bytes, from which on they are


def run(settings, condition, isa, listen):
    """Runs the worker under a condition (and an ISA, None for the best); listen(document) takes what it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith('MALLOC_')}
    # Threads that spin while they wait would take the time of whoever's turn is next.
    environment |= {'OMP_WAIT_POLICY': 'passive'} | CONDITIONS[condition]
    if isa:
        environment['QVLMEM_ISA'] = isa
    with subprocess.Popen([sys.executable, '-m', 'qvlmem.benchmarks.worker'], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            json.dump(settings, process.stdin)
            process.stdin.close()
            for line in process.stdout:
                listen(json.loads(line))
        except BrokenPipeError:
            pass  # it ended early; its exit code says so below
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise CommandError(f'the measuring process ended with exit code {process.returncode}')


def judge_cold(rows):
    """Gives each cold row its goal: no longer than warm, and what its outputs and their first touch take."""
    def key(row):
        return tuple(row[name] for name in ('isa', 'threads', 'dtype', 'bytes', 'case', 'direction'))

    warm = {key(row): row['ms'] for row in rows if row['condition'] == 'warm'}
    for row in rows:
        if row['condition'] == 'cold' and key(row) in warm:
            most = warm[key(row)] + row['touch_ms']
            row['goals'] = [{'goal': f'ms <= {most:.3g} (warm, and its outputs touched)', 'met': row['ms'] <= most}]


def add_speedups(rows):
    """Gives each row of several threads the times that it is faster than with one, and the same of the copy.

    And a goal, where the tensor is large and the copy gains as much.
    """
    def key(row):
        return tuple(row[name] for name in ('condition', 'isa', 'dtype', 'bytes', 'case', 'direction'))

    single = {key(row): row for row in rows if row['threads'] == 1}
    for row in rows:
        if row['threads'] > 1 and key(row) in single:
            row['x_one_thread'] = single[key(row)]['ms'] / row['ms']
            row['copy_x_one_thread'] = single[key(row)]['copy_ms'] / row['copy_ms']
            if row['copy_x_one_thread'] >= SPEEDUP and row['bytes'] >= LARGE and row['condition'] == 'warm':
                row['goals'].append({'goal': f'x one thread >= {SPEEDUP}', 'met': row['x_one_thread'] >= SPEEDUP})
