# SPDX-License-Identifier: Apache-2.0
"""profile and profile_values: exact up to 64 KiB, estimates beyond, finite and in range always."""

import math

import pytest
import torch
from hypothesis import given

from cuda_device import on
from strategies import FLOATS, as_rows, same_bits, tensors, values

pytestmark = pytest.mark.each_device

NAMES = ('numel', 'sparsity', 'mean', 'variance', 'absmax', 'outlier_ratio', 'row_absmax_spread',
         'entropy_bits', 'stable_rank', 'low_rank_energy')
EXPONENT = {torch.float32: (torch.int32, 23, 255), torch.float16: (torch.int16, 10, 31),
            torch.bfloat16: (torch.int16, 7, 255)}


def entropy_bits(x):
    """Of the exponent fields of a flat tensor."""
    carrier, shift, mask = EXPONENT[x.dtype]
    fields = (x.contiguous().view(carrier).long() >> shift) & mask
    share = torch.bincount(fields).double() / fields.numel()
    share = share[share > 0]
    return float(-(share * share.log2()).sum())


def by_definition(x):
    """All fields but the last two."""
    finite = x.reshape(-1)[x.reshape(-1).isfinite()]
    result = dict.fromkeys(NAMES[:8], 0.0)
    result['numel'] = x.numel()
    if finite.numel() == 0:
        return result
    v = finite.double()
    result['sparsity'] = float((v == 0).double().mean())
    result['mean'] = float(v.mean())
    result['variance'] = float(v.var(correction=0))
    result['absmax'] = float(v.abs().max())
    limit = 6 * math.sqrt(result['variance'])
    result['outlier_ratio'] = float(((v - result['mean']).abs() > limit).double().mean())
    rows = torch.where(x.isfinite(), x.double(), 0).abs()
    absmax = as_rows(rows).amax(dim=1)
    median = float(absmax.median())
    result['row_absmax_spread'] = float(absmax.max()) / median if median else 0.0
    result['entropy_bits'] = entropy_bits(finite)
    return result


def check_range(profile):
    assert all(math.isfinite(v) for v in profile.values())
    for name in ('sparsity', 'outlier_ratio', 'low_rank_energy'):
        assert 0 <= profile[name] <= 1
    assert 0 <= profile['entropy_bits'] <= 8
    assert profile['variance'] >= 0 and profile['absmax'] >= 0
    assert profile['stable_rank'] == 0 or 1 - 1e-9 <= profile['stable_rank'] <= 32 + 1e-9


@given(tensors(nonfinite=True))
def test_exact_up_to_64_kib(ops, x):
    profile = ops.profile(x)
    check_range(profile)
    if x.nbytes > 65536:
        return
    for name, value in by_definition(x).items():
        scale = 1 if name not in ('mean', 'variance') else max(profile['absmax'], 1e-300)
        assert profile[name] == pytest.approx(value, rel=1e-9, abs=1e-9 * scale), name


@given(tensors(nonfinite=True))
def test_profile_is_profile_values_with_names(ops, x):
    fields = ops.profile_values(x)
    assert fields.dtype == torch.float64 and tuple(fields.shape) == (10,)
    profile = ops.profile(x)
    assert list(profile) == list(NAMES)
    assert list(profile.values()) == fields.tolist()
    dense = x.clone(memory_format=torch.contiguous_format)
    assert same_bits(ops.profile_values(dense), fields)


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('shape', [(1_000_000,), (500_000, 1), (40_000, 20), (256, 4304), (3, 100_001)],
                         ids=str)
def test_estimates_of_larger_tensors_are_close(ops, dtype, shape):
    x = values('sparse', shape, dtype, seed=3)
    profile, truth = ops.profile(x), by_definition(x)
    check_range(profile)
    assert profile['numel'] == x.numel()
    error = 5 / math.sqrt(8192)  # five standard errors of a sample of 8192
    assert profile['sparsity'] == pytest.approx(truth['sparsity'], abs=error)
    assert profile['mean'] == pytest.approx(truth['mean'], abs=error)
    assert profile['variance'] == pytest.approx(truth['variance'], rel=4 * error)
    assert profile['entropy_bits'] == pytest.approx(truth['entropy_bits'], abs=4 * error)
    assert 0.5 * truth['absmax'] <= profile['absmax'] <= truth['absmax']


def singular_values(x):
    return torch.linalg.svdvals(as_rows(x).double())


@pytest.mark.parametrize('shape', [(32, 32), (5, 32), (32, 9), (1, 7), (7, 1), (2, 2), ()], ids=str)
@pytest.mark.parametrize('kind', ['normal', 'low_rank', 'mean', 'outliers', 'constant', 'huge'])
def test_spectrum_of_what_fits_in_the_block(ops, shape, kind):
    x = values(kind, shape, torch.float32, seed=2)
    s = singular_values(x)
    total = float((s**2).sum())
    profile = ops.profile(x)
    leading = math.ceil(len(s) / 8)
    assert profile['stable_rank'] == pytest.approx(total / float(s[0])**2, rel=1e-6)
    assert profile['low_rank_energy'] == pytest.approx(float((s[:leading]**2).sum()) / total, rel=1e-6)


def test_spectrum_tells_low_rank_from_full(ops):
    low = ops.profile(values('low_rank', (600, 16), torch.float32) @ torch.randn(16, 900))
    full = ops.profile(torch.randn(600, 900))
    assert low['low_rank_energy'] > 0.999 and low['stable_rank'] < 3
    assert full['low_rank_energy'] < 0.6 and full['stable_rank'] > 4


def test_rows_are_all_but_the_last_dimension(ops):
    x = torch.ones(4, 5, 100)
    x[3, 2] = 50
    assert ops.profile(x)['row_absmax_spread'] == 50
    assert ops.profile(x.reshape(1, -1))['row_absmax_spread'] == 1


def test_a_tensor_that_requires_grad_has_a_profile(ops):
    x = torch.randn(3, 4, requires_grad=True)
    assert ops.profile(x) == ops.profile(x.detach())


def test_profile_in_torchscript(ops, device):
    @torch.jit.script
    def spread(x: torch.Tensor) -> float:
        return torch.ops.qvlmem.profile(x)['row_absmax_spread']

    x = torch.randn(8, 16)
    assert spread(on(device, x)) == ops.profile(x)['row_absmax_spread']


def test_a_tensor_without_values_has_no_profile(ops):
    with pytest.raises(NotImplementedError, match='qvlmem::profile: expected x'):
        ops.profile(torch.ones(3, 5, device='meta'))
