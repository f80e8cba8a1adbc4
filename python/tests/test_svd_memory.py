# SPDX-License-Identifier: Apache-2.0
"""The memory that svd takes: beside what it returns its factors at the size tried and a panel."""

import os
import subprocess
import sys

import pytest

# In another process: what is resident at most during a call, less what was before it and what the call returned.
MEASURE = '''
import ctypes, json, sys, torch
library, rows, columns, dtype, keywords = sys.argv[1:]
torch.ops.load_library(library)
torch.set_num_threads(1)
def memory(name):
    return next(int(line.split()[1]) << 10 for line in open('/proc/self/status') if line.startswith(name))
# What runs for the first time is mapped, which counts too.
for shape in (300, 200), (30, 20):
    for keywords_before in {'energy': 0.5}, {'rank': 10}:
        torch.ops.qvlmem.svd(torch.randn(shape).to(getattr(torch, dtype)), **keywords_before)
# Free memory of the heap is not resident then, and hides nothing of what the call takes.
ctypes.CDLL(None).malloc_trim(0)
generator = torch.Generator().manual_seed(1)
x = torch.empty(int(rows), int(columns), dtype=getattr(torch, dtype)).normal_(generator=generator)
before = memory('VmRSS')
u, v = torch.ops.qvlmem.svd(x, **json.loads(keywords))
print(u.shape[1], memory('VmHWM') - before - u.nbytes - v.nbytes)
'''

MIB = 1 << 20


@pytest.mark.parametrize(('shape', 'dtype', 'keywords', 'rank', 'most'), [
    # The basis alone: of so small a space it is as large as x.
    ((1, 1 << 22), 'float32', '{}', 1, 16 * MIB), ((8, 1 << 20), 'float32', '{}', 8, 32 * MIB),
    ((64, 1 << 16), 'float32', '{}', 64, 16 * MIB), ((64, 1 << 16), 'bfloat16', '{}', 64, 16 * MIB),
    # Its basis is the unit vectors, and its image x, or a copy in float32.
    ((1 << 22, 1), 'float32', '{}', 1, 0), ((1 << 16, 64), 'float32', '{}', 64, 0),
    ((1 << 16, 64), 'bfloat16', '{}', 64, 16 * MIB),
    # 125 and 640 directions, and the eigenvectors of as many and what LAPACK takes to find them.
    ((2048, 2048), 'float32', '{"rank": 100}', 100, 16 * 125 * 1024),
    ((2048, 2048), 'bfloat16', '{"rank": 100}', 100, 16 * 125 * 1024),
    ((2048, 2048), 'float16', '{"rank": 100}', 100, 16 * 125 * 1024),
    ((2048, 2048), 'float32', '{"rank": 512}', 512, 16 * 640 * 1024 + 24 * 640 * 640),
    ((4096, 4096), 'float32', '{"rank": 100}', 100, 32 * 125 * 1024)])
def test_the_factors_and_a_panel(library_path, shape, dtype, keywords, rank, most):
    # Blocks above glibc's threshold come from the system and go back at once. Below it the heap grows by more or less
    # as they happen to fit its holes: a threshold, then, below all that counts here.
    result = subprocess.run([sys.executable, '-c', MEASURE, library_path, *map(str, shape), dtype, keywords],
                            text=True, capture_output=True, check=False,
                            env=os.environ | {'MALLOC_MMAP_THRESHOLD_': str(1 << 16)})
    assert result.returncode == 0, result.stderr[-2000:]
    found, beyond = map(int, result.stdout.split())
    assert found == rank
    # The panel, and buffers of the linear algebra.
    assert beyond <= most + 4 * MIB, f'{beyond} bytes beside what is returned; expected at most {most + 4 * MIB}'
