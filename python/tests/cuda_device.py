# SPDX-License-Identifier: Apache-2.0
"""Which devices the tests run on, and how a tensor gets there.

Tests that are marked `each_device` and use `device` or `ops` run on the CPU, and on CUDA where there is a GPU and the
library has kernels for it. A module of CUDA's own imports the fixture `require_cuda`: where there is none, its tests
skip. With QVLMEM_REQUIRE_CUDA=1 both kinds fail instead.
"""

import os

import pytest
import torch

from strategies import same_bits

REQUIRED = os.environ.get('QVLMEM_REQUIRE_CUDA') == '1'
# What reads or writes frames, which lie on the CPU.
FRAME_OPS = ('pack', 'unpack', 'decompress_frames')


def why_not():
    """Why there is no CUDA to test on; '' where there is."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key('qvlmem::quantize', 'CUDA'):
        return 'the library was built without CUDA'
    return '' if torch.cuda.is_available() else 'no CUDA device'


def check_cuda():
    reason = why_not()
    if reason and REQUIRED:
        pytest.fail(f'QVLMEM_REQUIRE_CUDA=1, but {reason}')
    if reason:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def require_cuda():
    check_cuda()


def add_markers(config):
    config.addinivalue_line('markers', 'each_device: run with `device` or `ops` on every device there is')
    config.addinivalue_line('markers', 'cuda: run of a library with CUDA; other tests say the same of one without')


# In the conftest.py of each folder: this hook, and the fixture.
def pytest_generate_tests(metafunc):
    if 'device' in metafunc.fixturenames and metafunc.definition.get_closest_marker('each_device'):
        names = ['cpu'] if why_not() and not REQUIRED else ['cpu', pytest.param('cuda', marks=pytest.mark.cuda)]
        metafunc.parametrize('device', names, indirect=True)


@pytest.fixture
def device(request):
    """The device under test: the CPU in tests of one device."""
    name = getattr(request, 'param', 'cpu')
    if name == 'cuda':
        check_cuda()
    return name


def on(device, value):
    """The same tensor on `device`: strides, offset, the storage around it and what is lazy included."""
    if not isinstance(value, torch.Tensor) or value.device.type == 'meta':
        return value
    if value.layout != torch.strided or value.is_quantized or value.numel() == 0:
        return value.detach().to(device).requires_grad_(value.requires_grad)
    if value.is_neg():
        return torch._neg_view(on(device, torch._neg_view(value)))
    if value.is_conj():
        return on(device, value.conj()).conj()
    room = value.untyped_storage()
    storage = torch.empty(room.nbytes(), dtype=torch.uint8, device=device)
    storage.copy_(torch.empty(0, dtype=torch.uint8, device=value.device).set_(room))
    flat = torch.empty(0, dtype=value.dtype, device=device).set_(storage.untyped_storage())
    moved = flat.as_strided(value.shape, value.stride(), value.storage_offset())
    return moved.requires_grad_(value.requires_grad)


def on_cuda(value):
    return on('cuda', value)


def each(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


def check_same(got, want):
    for a, b in zip(each(got), each(want), strict=True):
        assert a.device.type == 'cuda' and same_bits(a.cpu(), b)


class OpsOn:
    """torch.ops.qvlmem on `device`, as tests know it: tensors come from the CPU and go back there.

    So what a test expects is computed on the CPU, whatever it tests. That results lie on the device is checked here.
    """

    def __init__(self, device):
        self.device = device

    def __getattr__(self, name):
        op = getattr(torch.ops.qvlmem, name)
        if name == 'unpack':
            return lambda frame, device=self.device: op(frame, torch.device(device))
        return op if name in FRAME_OPS else lambda *arguments, **keywords: self._call(op, arguments, keywords)

    def _call(self, op, arguments, keywords):
        result = op(*(on(self.device, a) for a in arguments),
                    **{name: on(self.device, a) for name, a in keywords.items()})
        if isinstance(result, tuple):
            return tuple(map(self._back, result))
        return self._back(result)

    def _back(self, result):
        if isinstance(result, torch.Tensor):
            assert result.device.type == self.device, f'a result on {result.device}'
        return on('cpu', result)
