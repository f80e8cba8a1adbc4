# SPDX-License-Identifier: Apache-2.0
"""Every instruction set gives the same bytes, through the operators and whatever the thread count."""

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
import torch

from op_samples import round_trips
from strategies import laid_out, values

METHODS = ('none', 'int8', 'int4', 'fp16', 'bounded', 'sparse', 'lossless')  # svd: its BLAS decides
NEEDS = {'portable': None, 'avx2': 'avx2', 'avx512': 'avx512f'}


def results(threads):
    """{name: bytes} of the parts of every method and of the operators' round trips."""
    ops = torch.ops.qvlmem
    torch.set_num_threads(threads)
    found = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for kind, shape in (('normal', (37, 129)), ('outliers', (3, 4304)), ('wide', (5, 333)),
                            ('sparse', (2, 40, 72)), ('huge', (9, 31)), ('subnormal', (50,))):
            x = laid_out(values(kind, shape, dtype), 'offset')
            for method in METHODS:
                for bound in ('tensor', 'row', 'element') if method == 'bounded' else ('tensor',):
                    c = ops.compress(x, method, bound=bound)
                    for i, part in enumerate((*c.parts(), ops.decompress(c))):
                        found[f'{dtype} {kind} {method} {bound} {i}'] = part
            for bits in (8, 4):
                parts = ops.quantize(x, bits, False, 64, 11)
                found.update({f'{dtype} {kind} seeded {bits} {i}': p for i, p in enumerate(parts)})
            for name, trip in round_trips().items():
                if name not in ('factors', 'profiles') and kind not in ('wide', 'huge'):
                    found[f'{dtype} {kind} {name}'] = trip(x)
    return found


CHILD = '''
    import sys, torch
    sys.path.insert(0, sys.argv[1])
    torch.ops.load_library(sys.argv[2])
    from test_isa import results
    torch.save(results(1), sys.argv[3])
'''


@pytest.mark.parametrize('isa', list(NEEDS))
def test_same_bytes(library_path, tmp_path, threads, isa):
    flags = pathlib.Path('/proc/cpuinfo').read_text().split()
    if NEEDS[isa] and NEEDS[isa] not in flags:
        pytest.skip(f'needs a processor with {NEEDS[isa]}')
    threads(2)
    want = results(2)
    child = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(CHILD), str(pathlib.Path(__file__).parent),
         library_path, str(tmp_path / 'results.pt')],
        env={**os.environ, 'QVLMEM_ISA': isa}, capture_output=True, text=True, timeout=300,
        check=False)
    assert child.returncode == 0, child.stderr[-3000:]
    got = torch.load(tmp_path / 'results.pt')
    assert got.keys() == want.keys()
    different = [name for name in want
                 if not torch.equal(got[name].reshape(-1).view(torch.uint8),
                                    want[name].reshape(-1).view(torch.uint8))]
    assert not different
