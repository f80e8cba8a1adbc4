#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What it takes to load a model: qvlmem.load against torch.load, and the sizes of their files.

usage: .venv/bin/python tools/benchmarks/load_files.py [--tensors N] [--shape ROWS COLS] [--runs R] [--json]

Seeded normal weights in bfloat16, loaded from the page cache. Every load is in a process of its own, whose memory
is fresh, as a program's is that starts; and once more in the same process, into memory that was used before and
that the allocator kept (MALLOC_MMAP_MAX_=0). The two libraries take turns; the best of the runs counts, in seconds
by the clock and of CPU time, the kernel's included.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HEAP = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 34)}


def load(library, path, again):
    """[clock, CPU] seconds of one load; `again`: of the second."""
    import torch

    import qvlmem
    read = {'torch': torch.load, 'qvlmem': qvlmem.load}[library]
    torch.zeros(1 << 20).add_(1)  # the threads are there
    for _ in range(1 + again):
        loaded = None
        began, cpu = time.perf_counter(), time.process_time()
        loaded = read(path)
        figures = [time.perf_counter() - began, time.process_time() - cpu]
    assert loaded
    return figures


def measure(options, folder):
    import torch

    import qvlmem
    generator = torch.Generator().manual_seed(0)
    state = {f'layers.{i}.weight': (torch.randn(*options.shape, generator=generator) * 0.02).bfloat16()
             for i in range(options.tensors)}
    paths = {'torch': folder / 'model.pt', **{prefer: folder / f'{prefer}.qvlm' for prefer in ('balanced', 'size')}}
    torch.save(state, paths['torch'])
    for prefer in ('balanced', 'size'):
        qvlmem.save(state, paths[prefer], prefer=prefer)
    del state
    rows = {}
    for again in (False, True):
        for threads in (1, os.cpu_count()):
            for _ in range(options.runs):
                for name, path in paths.items():
                    library = 'torch' if name == 'torch' else 'qvlmem'
                    environment = os.environ | {'OMP_NUM_THREADS': str(threads)} | (HEAP if again else {})
                    figures = json.loads(subprocess.run(
                        [sys.executable, __file__, '--load', library, str(path), str(int(again))], check=True,
                        env=environment, stdout=subprocess.PIPE).stdout)
                    key = (name, 'used' if again else 'fresh', threads)
                    rows[key] = list(map(min, rows.get(key, figures), figures))
    return [{'file': name, 'memory': memory, 'threads': threads, 'mib': paths[name].stat().st_size / 2**20,
             'seconds': clock, 'cpu_seconds': cpu} for (name, memory, threads), (clock, cpu) in rows.items()]


def main():
    if sys.argv[1:2] == ['--load']:
        print(json.dumps(load(sys.argv[2], sys.argv[3], bool(int(sys.argv[4])))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--tensors', type=int, default=64, metavar='N', help='how many (default: 64)')
    parser.add_argument('--shape', type=int, nargs=2, default=(2048, 2048), metavar=('ROWS', 'COLS'),
                        help='of each (default: 2048 2048)')
    parser.add_argument('--runs', type=int, default=5, metavar='R', help='loads of each kind (default: 5)')
    parser.add_argument('--json', action='store_true', help='print one JSON document and no table')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, pathlib.Path(folder))
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f'{"file":10} {"MiB":>8} {"memory":>7} {"threads":>8} {"s":>8} {"CPU s":>8}')
    for row in rows:
        print(f'{row["file"]:10} {row["mib"]:8.1f} {row["memory"]:>7} {row["threads"]:8} {row["seconds"]:8.3f} '
              f'{row["cpu_seconds"]:8.3f}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
