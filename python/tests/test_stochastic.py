# SPDX-License-Identifier: Apache-2.0
"""quantize with a rounding_seed: unbiased, within one step, a function of seed and flat index only."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from strategies import FLOATS, same_bits, tensors, values
from test_quantize import MODES, SLACK, check_parts

pytestmark = pytest.mark.each_device

SEEDS = st.integers(-2**63, 2**63 - 1)


@given(tensors(), MODES, SEEDS)
def test_within_one_step(ops, x, mode, seed):
    bits, symmetric, group_size = mode
    parts = ops.quantize(x, bits, symmetric, group_size, seed)
    matrix, steps, reconstruction = check_parts(x, parts, bits, symmetric, group_size)
    off = (matrix - reconstruction).abs()
    assert bool((off <= steps * SLACK).all()), float((off / steps).max())


@given(tensors(), MODES, SEEDS)
def test_scales_do_not_depend_on_the_seed(ops, x, mode, seed):
    bits, symmetric, group_size = mode
    nearest = ops.quantize(x, bits, symmetric, group_size)
    chance = ops.quantize(x, bits, symmetric, group_size, seed)
    assert same_bits(nearest[1], chance[1]) and same_bits(nearest[2], chance[2])


@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('fraction', [0.0625, 0.25, 0.5, 0.9375])
@pytest.mark.parametrize('base', [-3, 2])
def test_mean_is_the_value(ops, bits, symmetric, fraction, base):
    """The scale is exactly 1 by construction, so that base + fraction has exactly that fraction."""
    count = 40000
    x = torch.full((count,), base + fraction)
    if symmetric:
        x[0] = {8: 127.0, 4: 7.0}[bits]
    else:
        x[0], x[1] = {8: (-100.0, 155.0), 4: (-5.0, 10.0)}[bits]
    q, scale, zero_point = ops.quantize(x, bits, symmetric, 0, 1234)
    assert scale.item() == 1
    y = ops.dequantize(q, scale, zero_point, x.shape, bits)[2:].double()
    assert bool(((y == base) | (y == base + 1)).all())
    sigma = math.sqrt(fraction * (1 - fraction) / (count - 2))
    assert abs(float(y.mean()) - (base + fraction)) <= 5 * sigma


def test_neighbours_are_rounded_independently(ops):
    x = torch.full((40001,), 0.5)
    x[0] = 127
    up = ops.quantize(x, 8, True, 0, 99)[0][1:].double()
    for lag in (1, 2, 3, 4, 8, 16, 64, 4096):
        together = float(((up[:-lag] - 0.5) * (up[lag:] - 0.5)).mean())
        assert abs(together) <= 5 * 0.25 / math.sqrt(up.numel() - lag), lag


def test_seeds_differ_in_every_bit(ops):
    x = torch.full((512,), 0.5)
    x[0] = 127
    seen = [ops.quantize(x, 8, True, 0, 0)[0]]
    for bit in range(64):
        seed = (1 << bit) - (1 << 64 if bit == 63 else 0)
        q = ops.quantize(x, 8, True, 0, seed)[0]
        assert same_bits(q, ops.quantize(x, 8, True, 0, seed)[0]), 'a seed repeats'
        assert not any(torch.equal(q, other) for other in seen), f'bit {bit} of the seed is lost'
        seen.append(q)


@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('group_size', [0, -1, 128, 100])
def test_threads_change_nothing(ops, threads, bits, group_size):
    x = values('normal', (5, 60001), torch.float32)
    threads(1)
    one = ops.quantize(x, bits, False, group_size, 7)
    for count in (2, 3, 5):
        threads(count)
        many = ops.quantize(x, bits, False, group_size, 7)
        assert all(same_bits(a, b) for a, b in zip(one, many, strict=True))


@given(st.sampled_from((8, 4)), st.booleans(), st.integers(1, 9), st.integers(1, 300), SEEDS)
def test_a_prefix_of_rows_is_rounded_as_in_the_whole(ops, bits, symmetric, rows, columns, seed):
    x = torch.randn(10, columns)
    whole = ops.quantize(x, bits, symmetric, -1, seed)
    part = ops.quantize(x[:rows], bits, symmetric, -1, seed)
    assert same_bits(whole[0][:rows], part[0]) and same_bits(whole[1][:rows], part[1])


@given(st.sampled_from((8, 4)), st.booleans(), st.sampled_from((2, 3, 4, 5, 31, 129)), SEEDS)
def test_the_key_is_the_flat_index_of_the_element(ops, bits, symmetric, columns, seed):
    """Rows of a matrix and runs of the same length in a vector are the same groups: also where a row
    of nibbles ends in half a byte, so that the index counts elements and not bytes or nibbles."""
    x = torch.randn(7, columns)
    rows = ops.quantize(x, bits, symmetric, -1, seed)
    flat = ops.quantize(x.reshape(-1), bits, symmetric, columns, seed)
    decoded = ops.dequantize(*rows, x.shape, bits, -1)
    assert same_bits(decoded, ops.dequantize(*flat, [x.numel()], bits, columns).reshape(x.shape))


def test_dtype_does_not_enter(ops):
    """The same numbers in three dtypes: bits of q must agree."""
    x = torch.randint(-96, 97, (33, 129)).float() / 64
    want = ops.quantize(x, 8, True, 64, 5)
    for dtype in FLOATS:
        got = ops.quantize(x.to(dtype), 8, True, 64, 5)
        assert all(same_bits(a, b) for a, b in zip(want, got, strict=True)), dtype


def test_whole_steps_are_not_rounded(ops):
    x = torch.randint(-127, 128, (100, 33)).float()
    x[:, 0] = 127
    for seed in (0, 1, -1):
        assert same_bits(ops.quantize(x, 8, True, -1, seed)[0].float(), x)
