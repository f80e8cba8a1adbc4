# SPDX-License-Identifier: Apache-2.0
"""A library with CUDA kernels on a machine without a GPU: it loads, serves the CPU, and starts no CUDA."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

import qvlmem
from qvlmem.commands import doctor

pytestmark = pytest.mark.cuda

PROGRAM = """
import sys
import torch
torch.ops.load_library(sys.argv[1])
x = torch.randn(64, 96)
y = torch.ops.qvlmem.decompress(torch.ops.qvlmem.compress(x, max_error=0.01))
assert float((x - y).norm() / x.norm()) <= 0.01
assert not torch.cuda.is_initialized() and not torch.cuda.is_available()
has = torch._C._dispatch_has_kernel_for_dispatch_key
print(*(op for op in sys.argv[2:] if has('qvlmem::' + op, 'CUDA')))
"""


def library():
    """The library and what it was built for; skips where that is without CUDA."""
    path = pathlib.Path(qvlmem.library_path())
    built_for = json.loads(path.with_suffix('.json').read_text())
    if 'cuda' not in built_for:
        pytest.skip('the library was built without CUDA')
    return path, built_for


def test_it_is_of_pytorchs_cuda():
    _, built_for = library()
    assert built_for['cuda'].split('.')[0] == torch.version.cuda.split('.')[0]
    assert built_for['torch'] == torch.__version__.split('+')[0]


def test_loaded_alone_it_serves_the_cpu_and_starts_no_cuda():
    path, _ = library()
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, path, 'quantize', 'dequantize'],
        capture_output=True, text=True, env=os.environ | {'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['quantize', 'dequantize']


def test_the_doctor_says_so():
    _, built_for = library()
    assert doctor.examine()['library']['cuda'] == built_for['cuda']


@pytest.mark.parametrize('built_for, said', [
    ({'torch': '1.0.0'}, 'built for PyTorch 1.0.0, but PyTorch'),
    ({'cuda': '5.0'}, 'built with CUDA 5.0, but the PyTorch that is imported'),
])
def test_one_built_for_another_pytorch_is_refused(tmp_path, monkeypatch, built_for, said):
    path = tmp_path / 'libqvlmem.so'
    path.write_bytes(b'')
    path.with_suffix('.json').write_text(json.dumps(built_for))
    monkeypatch.setenv('QVLMEM_LIBRARY', str(path))
    with pytest.raises(ImportError, match=said):
        qvlmem.load_library()
