# SPDX-License-Identifier: Apache-2.0
"""sparsify and densify, and the codec `sparse`, against a reference that sorts.

The reference works on the bit patterns in numpy, where an element's magnitude is its pattern without
the sign.
"""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from strategies import FLOATS, LAYOUTS, laid_out, same_bits, shapes, tensors, values

pytestmark = pytest.mark.each_device

MAGNITUDE = {4: np.uint32(0x7fffffff), 2: np.uint16(0x7fff)}


def patterns(x):
    """x's bits as a flat numpy array of unsigned integers."""
    flat = x.detach().reshape(-1).clone()
    signed = flat.view({4: torch.int32, 2: torch.int16}[x.dtype.itemsize])
    return signed.numpy().view({4: np.uint32, 2: np.uint16}[x.dtype.itemsize])


def expected_positions(x, threshold, prune):
    """What the contract says is stored."""
    bits = patterns(x)
    if not prune:
        return np.flatnonzero(bits)
    magnitudes = bits & MAGNITUDE[x.dtype.itemsize]
    kept = np.flatnonzero(magnitudes)
    target = math.ceil(threshold * x.numel())
    excess = len(kept) - (x.numel() - target)
    if excess > 0:
        # A stable sort, largest first: of equal ones the later come last.
        order = np.argsort(-magnitudes[kept].astype(np.int64), kind='stable')
        kept = np.sort(kept[order[:len(kept) - excess]])
    return kept


def check(ops, x, threshold, prune):
    indices, stored = ops.sparsify(x, threshold, prune)
    want = expected_positions(x, threshold, prune)
    assert indices.dtype == torch.int32 and stored.dtype == x.dtype
    assert indices.dim() == stored.dim() == 1
    assert indices.is_contiguous() and stored.is_contiguous()
    assert np.array_equal(indices.numpy(), want)
    assert np.array_equal(patterns(stored), patterns(x)[want])
    y = ops.densify(indices, stored, x.shape)
    dense = np.zeros_like(patterns(x))
    dense[want] = patterns(x)[want]
    assert y.shape == x.shape and y.dtype == x.dtype and y.is_contiguous()
    assert np.array_equal(patterns(y), dense)
    return indices, stored


THRESHOLDS = st.one_of(st.sampled_from((0.0, 0.5, 1.0, 1 / 3, 0.1, 5e-324)), st.floats(0, 1))


@given(tensors(), THRESHOLDS, st.booleans())
def test_stores_what_the_contract_says(ops, x, threshold, prune):
    check(ops, x, threshold, prune)


@st.composite
def few_values(draw):
    """Many ties, zeros of both signs, numbers next to each other."""
    dtype = draw(st.sampled_from(FLOATS))
    info = torch.finfo(dtype)
    palette = torch.tensor([0.0, -0.0, 1.0, -1.0, 1.0 + info.eps, info.tiny, -info.tiny / 2, info.max,
                            -info.max, 0.5], dtype=torch.float64).to(dtype)
    shape = draw(shapes())
    used = draw(st.integers(1, len(palette)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    choice = torch.randint(0, used, shape, generator=generator)
    order = torch.randperm(len(palette), generator=generator)
    return laid_out(palette[order][choice], draw(st.sampled_from(LAYOUTS)))


@given(few_values(), THRESHOLDS, st.booleans())
def test_of_equal_magnitudes_the_earlier_stay(ops, x, threshold, prune):
    check(ops, x, threshold, prune)


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('n', [16384, 16385, 300_001])
def test_large_tensors_and_thresholds_around_the_zeros_that_are_there(ops, dtype, n):
    x = values('sparse', (n,), dtype, seed=1)
    zeros = int((x == 0).sum())
    for target in (0, 1, zeros - 1, zeros, zeros + 1, zeros + 1000, n - 1, n):
        indices, _ = check(ops, x, target / n, True)
        ceiling = math.ceil(target / n * n)
        assert len(indices) == n - max(zeros, ceiling)


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('shape', [(), (0,), (1,), (3, 0, 2), (1, 1)], ids=str)
@pytest.mark.parametrize('threshold', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('value', [0.0, -0.0, 2.0])
def test_tiny_shapes(ops, dtype, shape, threshold, value):
    for prune in (True, False):
        check(ops, torch.full(shape, value, dtype=dtype), threshold, prune)


def test_all_alike_keeps_the_first_ones(ops):
    x = torch.full((100_000,), -3.0)
    indices, _ = ops.sparsify(x, 0.25)
    assert torch.equal(indices, torch.arange(75_000, dtype=torch.int32))


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('kind', ['normal', 'zeros'])
def test_what_is_not_finite_is_refused_or_kept_bit_by_bit(ops, dtype, bad, kind):
    x = values(kind, (3, 20_000), dtype)
    x[1, 7] = x[2, 19_999] = bad
    message = r'expected x to be finite, got 2 values .* first at index \[1, 7\]'
    for call in (lambda: ops.sparsify(x), lambda: ops.sparsify(x, 0.0),
                 lambda: ops.compress(x, 'sparse')):
        with pytest.raises(ValueError, match=message):
            call()
    check(ops, x, 0.5, False)


@pytest.mark.parametrize('make', [
    lambda: torch.zeros(3, 1_100_000), lambda: torch.zeros(2_300_000, 1)[:, 0], lambda: torch.zeros(1_000, 3, 900),
    lambda: torch.zeros(1_100, 1_300).t(), lambda: torch.zeros(2, 1, 1_200_000)[:, :, ::1],
], ids=('rows', 'flat', 'planes', 'transposed', 'long'))
def test_what_is_not_finite_is_found_in_large_tensors(ops, make):
    """More values than are looked at at a time, in any layout."""
    x = make()
    for number, first in enumerate((x.numel() - 1, x.numel() * 5 // 7, 12_345), 1):
        index = [int(i) for i in torch.unravel_index(torch.tensor(first), x.shape)]
        x[tuple(index)] = math.nan
        with pytest.raises(ValueError, match=rf'got {number} values? that .* first at index \{index}'):
            ops.sparsify(x)


def test_nan_payloads_survive_without_pruning(ops):
    bits = torch.tensor([0x7f800001, 0x7fc12345, -1, 0, -0x80000000, 1], dtype=torch.int32)
    indices, stored = ops.sparsify(bits.view(torch.float32), prune=False)
    assert indices.tolist() == [0, 1, 2, 4, 5]
    assert stored.view(torch.int32).tolist() == bits[[0, 1, 2, 4, 5]].tolist()


@pytest.mark.parametrize('threshold', [-0.1, 1.1, math.nan, math.inf])
def test_a_threshold_is_a_share(ops, threshold):
    for prune in (True, False):
        with pytest.raises(ValueError, match=r'sparsify: expected sparsity_threshold to be in \[0, 1\]'):
            ops.sparsify(torch.ones(4), threshold, prune)


@pytest.mark.parametrize('dtype', [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize('n', [6, 50_000])
def test_densify_says_which_index_is_wrong(ops, dtype, n):
    good = torch.arange(1, n - 1, 2, dtype=dtype)
    stored = torch.ones(len(good))
    assert ops.densify(good, stored, [n]).sum() == len(good)
    for position in {0, 1, len(good) // 2, len(good) - 1}:
        for wrong in (-1, n, torch.iinfo(dtype).min, torch.iinfo(dtype).max):
            indices = good.clone()
            indices[position] = wrong
            with pytest.raises(ValueError, match=rf'to be in \[0, {n}\), got {wrong} at position {position}'):
                ops.densify(indices, stored, [n])
        if position:
            for wrong in (good[position - 1], 0):
                indices = good.clone()
                indices[position] = wrong
                with pytest.raises(ValueError, match=f'sorted and distinct.* at position {position}'):
                    ops.densify(indices, stored, [n])


@given(tensors(shape=shapes(max_numel=3000)), st.sampled_from((torch.int32, torch.int64)))
def test_densify_takes_any_strides_and_both_widths(ops, x, width):
    indices, stored = ops.sparsify(x, 0.3)
    want = ops.densify(indices, stored, x.shape)
    loose = [torch.stack([p, torch.zeros_like(p)], dim=-1)[..., 0] for p in (indices.to(width), stored)]
    assert same_bits(ops.densify(*loose, x.shape), want)


@given(tensors(), st.sampled_from((0.0, 0.5, 0.9, 0.99, 0.9999, 1.0)))
def test_the_codec_holds_what_sparsify_gives(ops, x, threshold):
    c = ops.compress(x, 'sparse', sparsity_threshold=threshold)
    indices, stored = ops.sparsify(x, threshold)
    y = ops.decompress(c)
    assert same_bits(y, ops.densify(indices, stored, x.shape))
    # Never more than COO, but for the counts of the units.
    assert c.nbytes() <= indices.nbytes + stored.nbytes + 2 * math.ceil(x.numel() / 16384)
    coo = c.to_sparse_coo()
    assert coo.is_coalesced() and coo.shape == x.shape and coo.dtype == x.dtype
    assert coo._nnz() == len(stored) and same_bits(coo.to_dense().cpu(), y)
    assert same_bits(ops.decompress(ops.unpack(ops.pack(c))), y)


def test_the_index_is_small_where_zeros_are_many(ops):
    n = 1 << 20
    x = values('normal', (n,), torch.float32)
    for share, most in ((0.5, 2 + 0.126), (0.8, 0.8 + 0.126), (0.95, 0.05 * 5 + 0.0047),
                        (0.999, 0.001 * 6 + 0.0002)):
        c = ops.compress(x, 'sparse', sparsity_threshold=share)
        assert c.nbytes() <= most * n, share
