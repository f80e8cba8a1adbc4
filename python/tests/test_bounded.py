# SPDX-License-Identifier: Apache-2.0
"""The codec `bounded` against a decoder written from its layout, and what its steps must do.

That bounds hold, over all dtypes, shapes and layouts, is test_compress.py's.
"""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from bounded_layout import decode, form
from strategies import ERRORS, FLOATS, as_rows, row_error, same_bits, tensors, values

pytestmark = pytest.mark.each_device

BOUNDS = st.sampled_from(tuple(ERRORS))


def compress(ops, x, max_error=0.01, bound='tensor'):
    return ops.compress(x, 'bounded', max_error=max_error, bound=bound)


@given(tensors(), BOUNDS, st.sampled_from((1e-6, 1e-3, 0.01, 0.3)))
def test_the_layout_decodes_to_what_comes_back(ops, x, bound, max_error):
    c = compress(ops, x, max_error, bound)
    assert same_bits(ops.decompress(c), decode(ops, c, x))


@pytest.mark.parametrize('shape', [(1, 40000), (2, 33000), (300, 129), (40000, 1)], ids=str)
@pytest.mark.parametrize('bound', tuple(ERRORS))
def test_the_layout_of_several_units(ops, shape, bound):
    x = values('normal', shape, torch.float32)
    # Blocks of their own scale, which packed widths follow and one table of codes cannot.
    scales = torch.exp2(torch.arange(x.numel()) // 32 * 7 % 17)
    for uneven in (False, True):
        x = (x.reshape(-1) * scales).reshape(shape) if uneven else x
        c = compress(ops, x, 0.003, bound)
        assert c.parts()[1].numel() > 1
        if bound != 'row':
            assert form(ops, c) == (0 if uneven else 2)
        assert same_bits(ops.decompress(c), decode(ops, c, x))


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize(('kind', 'shape'), [('normal', (33, 72)), ('outliers', (9000,)), ('sparse', (400, 129)),
                                             ('integers', (2, 40000))], ids=str)
@pytest.mark.parametrize('bound', tuple(ERRORS))
def test_the_layout_of_coded_units(ops, kind, shape, dtype, bound):
    x = values(kind, shape, dtype)
    for max_error in (0.05, 0.003):
        c = compress(ops, x, max_error, bound)
        assert form(ops, c) & 2 or (kind, bound) == ('outliers', 'element'), 'coded'
        assert same_bits(ops.decompress(c), decode(ops, c, x))


@given(tensors(kinds=('normal', 'positive', 'outliers', 'sparse', 'mean')), BOUNDS,
       st.integers(-3, 3))
def test_a_power_of_two_scales_the_steps_alone(ops, x, bound, exponent):
    x = x.to(torch.float32)
    c, d = compress(ops, x, bound=bound), compress(ops, x * 2.0**exponent, bound=bound)
    nonzero = as_rows(x).abs().amax(-1) > 0 if bound == 'row' and x.numel() else x.any().reshape(1)
    if x.numel():
        assert torch.equal(c.parts()[0][nonzero] * 2.0**exponent, d.parts()[0][nonzero])
    assert torch.equal(c.parts()[1], d.parts()[1]) and torch.equal(c.parts()[2], d.parts()[2])


@given(tensors(shape=(7, 72)), st.permutations(range(7)))
def test_a_row_has_the_same_step_wherever_it_stands(ops, x, order):
    step = compress(ops, x, bound='row').parts()[0]
    assert torch.equal(compress(ops, x[list(order)], bound='row').parts()[0], step[list(order)])


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
def test_one_loud_row_does_not_drown_the_others(ops, dtype):
    x = values('normal', (33, 200), torch.float32)
    x[4] *= 5000
    x[9] = 0
    x = x.to(dtype)
    by_tensor = ops.decompress(compress(ops, x))
    by_row = ops.decompress(compress(ops, x, bound='row'))
    assert row_error(x, by_tensor) > 0.5
    assert row_error(x, by_row) <= 0.01
    assert not by_row[9].any() and not by_tensor[9].any()


@pytest.mark.parametrize('max_error', [0.1, 0.01, 0.001])
def test_normal_values_take_little_more_than_their_entropy(ops, max_error):
    # Of the integers, with step = sqrt(12) max_error: 3.6, 6.9 and 10.2 bits.
    entropy = 0.5 * math.log2(2 * math.pi * math.e / 12) - math.log2(max_error)
    x = values('normal', (256, 1024), torch.float32)
    for bound in ('tensor', 'row'):
        bits = 8 * compress(ops, x, max_error, bound).nbytes() / x.numel()
        assert entropy - 0.02 <= bits <= entropy + 0.12


def test_what_is_all_alike_takes_next_to_nothing(ops):
    assert compress(ops, torch.zeros(512, 512)).ratio() > 120
    assert compress(ops, torch.full((512, 512), 7.3)).ratio() > 20
    assert compress(ops, torch.randn(512, 512), max_error=1.0).ratio() > 120


@pytest.mark.parametrize('bound', tuple(ERRORS))
def test_rows_without_values_take_nothing(ops, bound):
    c = compress(ops, torch.empty(2**40, 0), bound=bound)
    assert c.nbytes() == 0 and c.ratio() == 1 and c.worst_row_error() == 0
    assert ops.decompress(ops.unpack(ops.pack(c))).shape == (2**40, 0)


def test_a_finer_bound_never_takes_fewer_bytes(ops):
    x = values('outliers', (64, 500), torch.float32)
    for bound in ERRORS:
        sizes = [compress(ops, x, 2.0**-i, bound).nbytes() for i in range(1, 20)]
        assert sizes == sorted(sizes)


@pytest.mark.parametrize('columns', [40, 40000])
def test_errors_say_what_is_wrong(ops, columns):
    x = torch.ones(3, columns)
    with pytest.raises(ValueError, match='qvlmem::compress: expected max_error to be above 0, got 0'):
        compress(ops, x, 0.0)
    with pytest.raises(ValueError, match='qvlmem::compress: expected max_error (?s:.*)got 1e-1[34]'):
        compress(ops, torch.randn(3, columns), 1e-13)
    x[2, 5] = math.nan
    with pytest.raises(ValueError, match=r'qvlmem::compress: (?s:.*)got 1 value that is(?s:.*)\[2, 5\]'):
        compress(ops, x)
