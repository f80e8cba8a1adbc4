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


def run(settings, condition, isa, listen):
    """Runs the worker under a condition (and an ISA, None for the best); listen(document) takes what it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith('MALLOC_')}
    # Threads that spin while they wait would take the time of whoever's turn is next.
    environment |= {'OMP_WAIT_POLICY': 'passive'} | CONDITIONS[condition]
    if isa:
        environment['QVLMEM_ISA'] = isa
    # In a session of its own: whoever interrupts us leaves it to us to end it.
    with subprocess.Popen([sys.executable, '-m', 'qvlmem.benchmarks.worker'], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
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
