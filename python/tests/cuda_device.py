# SPDX-License-Identifier: Apache-2.0
"""What tests on a GPU share. `require_cuda` is their fixture: without a GPU, or with a library without CUDA, they
skip; QVLMEM_REQUIRE_CUDA=1 has them fail instead.
"""

import os

import pytest
import torch

from strategies import same_bits


def why_not():
    """Why there is no CUDA to test on; '' where there is."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key('qvlmem::quantize', 'CUDA'):
        return 'the library was built without CUDA'
    return '' if torch.cuda.is_available() else 'no CUDA device'


@pytest.fixture(autouse=True)
def require_cuda():
    reason = why_not()
    if reason and os.environ.get('QVLMEM_REQUIRE_CUDA') == '1':
        pytest.fail(f'QVLMEM_REQUIRE_CUDA=1, but {reason}')
    if reason:
        pytest.skip(reason)


def on_cuda(value):
    """The same tensor, strides and alignment included, on the GPU."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.numel() == 0:
        return value.cuda()
    storage = torch.empty(value.untyped_storage().nbytes(), dtype=torch.uint8, device='cuda')
    storage.copy_(torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage()))
    flat = torch.empty(0, dtype=value.dtype, device='cuda').set_(storage.untyped_storage())
    return flat.as_strided(value.shape, value.stride(), value.storage_offset())


def each(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


def check_same(got, want):
    for a, b in zip(each(got), each(want), strict=True):
        assert a.device.type == 'cuda' and same_bits(a.cpu(), b)
