# SPDX-License-Identifier: Apache-2.0
"""quantize and dequantize against a reference written from their contract, in float64.

The rounding itself is not restated here: what is checked is where every integer lies in q, how far
each may be from its value, and what is padded, empty or refused. test_stochastic.py rounds by chance.
"""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from strategies import (FLOATS, as_rows, describe, same_bits, shapes, tensors, values)

pytestmark = [pytest.mark.each_device, pytest.mark.cuda]

SLACK = 1 + 2.0**-13
SMALLEST_SCALE = 2.0**-126


def expected_scale_shape(shape, group_size):
    shape = tuple(shape) or (1,)
    if group_size == 0:
        return ()
    if group_size == -1:
        return shape[:-1]
    return (*shape[:-1], math.ceil(shape[-1] / group_size))


def integers(q, shape, bits):
    """q as an int64 matrix [rows, last]; checks its dtype, its shape and that rows are padded with 0."""
    shape = tuple(shape) or (1,)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    if bits == 8:
        assert q.dtype == torch.int8 and tuple(q.shape) == shape
        return q.reshape(rows, columns).long()
    assert q.dtype == torch.uint8 and tuple(q.shape) == (*shape[:-1], math.ceil(columns / 2))
    both = q.reshape(rows, math.ceil(columns / 2)).long()
    nibbles = torch.stack([both & 15, both >> 4], dim=-1).flatten(1)
    assert not nibbles[:, columns:].any(), 'the last nibble of an odd row is not 0'
    return nibbles[:, :columns]


def signed(nibbles):
    """Two's complement of four bits."""
    return torch.where(nibbles > 7, nibbles - 16, nibbles)


def per_element(parameter, rows, columns, group_size):
    """A scale or zero point for each element of a matrix [rows, columns]."""
    if group_size == 0:
        return parameter.reshape(1, 1).expand(rows, columns)
    if group_size == -1:
        return parameter.reshape(rows, 1).expand(rows, columns)
    spread = parameter.reshape(rows, math.ceil(columns / group_size))
    return spread.repeat_interleave(group_size, dim=1)[:, :columns]


def check_parts(x, parts, bits, symmetric, group_size):
    """Checks q, scale and zero_point as such; returns (steps, scale, reconstruction), as matrices."""
    q, scale, zero_point = parts
    assert q.is_contiguous() and scale.is_contiguous() and zero_point.is_contiguous()
    matrix = as_rows(x).double()
    rows, columns = matrix.shape
    shape = expected_scale_shape(x.shape, group_size)
    assert scale.dtype == torch.float32 and tuple(scale.shape) == shape
    assert zero_point.dtype == torch.int32
    stored = integers(q, x.shape, bits)
    if bits == 4 and symmetric:
        stored = signed(stored)
    low, high = {(8, True): (-127, 127), (8, False): (-128, 127), (4, True): (-7, 7),
                 (4, False): (0, 15)}[bits, symmetric]
    if symmetric:
        assert zero_point.numel() == 0
        zero = torch.zeros_like(stored)
    else:
        assert tuple(zero_point.shape) == shape
        if zero_point.numel():
            assert low <= int(zero_point.min()) and int(zero_point.max()) <= high
        zero = per_element(zero_point.long(), rows, columns, group_size)
    if stored.numel():
        assert low <= int(stored.min()) and int(stored.max()) <= high
    if scale.numel():
        assert float(scale.min()) >= SMALLEST_SCALE and bool(torch.isfinite(scale).all())
    steps = per_element(scale.double(), rows, columns, group_size)
    return matrix, steps, (stored - zero) * steps


def group_ranges(x, group_size):
    """(lowest, highest) of each group's values and 0, in the shape of scale."""
    shape = expected_scale_shape(x.shape, group_size)
    matrix = as_rows(x).double()
    if group_size == 0:
        matrix = matrix.reshape(1, -1)
    run = group_size if group_size > 0 else max(matrix.shape[1], 1)
    missing = -matrix.shape[1] % run
    padded = torch.cat([matrix, matrix.new_zeros(matrix.shape[0], missing)], dim=1)
    runs = padded.reshape(-1, run) if padded.numel() else matrix.new_zeros(math.prod(shape), 1)
    return (runs.amin(dim=1).clamp(max=0).reshape(shape),
            runs.amax(dim=1).clamp(min=0).reshape(shape))


def rounding_of(dtype, reference):
    """What rounding `reference` to float32 and then to `dtype` may cost."""
    info = torch.finfo(dtype)
    half_unit = (reference.abs() * info.eps / 2).clamp(min=info.smallest_normal * info.eps / 2)
    single = (reference.abs() * 2.0**-24).clamp(min=2.0**-150)
    return half_unit + 2 * single


GROUPS = st.sampled_from((0, -1, 1, 2, 3, 32, 64, 100, 128, 129, 5000))
MODES = st.tuples(st.sampled_from((8, 4)), st.booleans(), GROUPS)


@given(tensors(), MODES)
def test_error_is_within_half_a_step_of_the_group(ops, x, mode):
    bits, symmetric, group_size = mode
    parts = ops.quantize(x, bits, symmetric, group_size)
    matrix, steps, reconstruction = check_parts(x, parts, bits, symmetric, group_size)
    off = (matrix - reconstruction).abs()
    assert bool((off <= 0.5 * steps * SLACK).all()), float((off / steps).max())
    assert bool((reconstruction[matrix == 0] == 0).all()), 'a zero did not stay zero'


@given(tensors(), MODES, st.sampled_from((None, *FLOATS)))
def test_round_trip_is_within_half_a_step_plus_rounding(ops, x, mode, dtype):
    bits, symmetric, group_size = mode
    q, scale, zero_point = ops.quantize(x, bits, symmetric, group_size)
    y = ops.dequantize(q, scale, zero_point, x.shape, bits, group_size, dtype)
    out = dtype or torch.float32
    assert y.dtype == out and y.shape == x.shape and y.is_contiguous()
    assert bool(torch.isfinite(y).all()), 'a decoder saturates'
    matrix, steps, reconstruction = check_parts(x, (q, scale, zero_point), bits, symmetric,
                                                group_size)
    largest = torch.finfo(out).max
    reconstruction = reconstruction.clamp(-largest, largest)
    decoded = as_rows(y).double()
    assert bool(((decoded - reconstruction).abs() <= rounding_of(out, reconstruction)).all())
    off = (matrix.clamp(-largest, largest) - decoded).abs()
    assert bool((off <= 0.5 * steps * SLACK + rounding_of(out, reconstruction)).all())


@given(tensors(), MODES)
def test_scale_comes_from_the_values_own_range(ops, x, mode):
    bits, symmetric, group_size = mode
    _, scale, _ = ops.quantize(x, bits, symmetric, group_size)
    low, high = group_ranges(x, group_size)
    if symmetric:
        ideal = torch.maximum(high, -low) / {8: 127, 4: 7}[bits]
    else:
        ideal = (high - low) / {8: 255, 4: 15}[bits]
    zero = (low == 0) & (high == 0)
    ideal = torch.where(zero, 1.0, ideal.clamp(min=SMALLEST_SCALE))
    assert bool(((scale.double() - ideal).abs() <= ideal * 2.0**-21).all())


@given(tensors(), MODES, st.none() | st.integers(-2**63, 2**63 - 1))
def test_layout_in_memory_changes_nothing(ops, x, mode, seed):
    bits, symmetric, group_size = mode
    strided = ops.quantize(x, bits, symmetric, group_size, seed)
    dense = ops.quantize(x.clone(memory_format=torch.contiguous_format), bits, symmetric,
                         group_size, seed)
    assert all(same_bits(a, b) for a, b in zip(strided, dense, strict=True))


@given(tensors(shape=shapes(max_numel=3000)), MODES)
def test_dequantize_takes_any_strides(ops, x, mode):
    bits, symmetric, group_size = mode
    parts = ops.quantize(x, bits, symmetric, group_size)
    want = ops.dequantize(*parts, x.shape, bits, group_size)
    loose = [torch.stack([p, torch.zeros_like(p)], dim=-1)[..., 0] for p in parts]
    assert same_bits(ops.dequantize(*loose, x.shape, bits, group_size), want)


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('group_size', [0, -1, 128, 4096])
def test_groups_larger_than_a_cache_keep_the_bound(ops, dtype, bits, symmetric, group_size):
    """Long groups are ranged before they are encoded, in pieces: a piece must not lose the range."""
    x = values('mean', (3, 70001), dtype, seed=1)
    x[1, 69999] = -250.0  # in the last piece of its row
    parts = ops.quantize(x, bits, symmetric, group_size)
    matrix, steps, reconstruction = check_parts(x, parts, bits, symmetric, group_size)
    assert bool(((matrix - reconstruction).abs() <= 0.5 * steps * SLACK).all())


def test_four_bits_are_packed_low_nibble_first(ops):
    x = torch.tensor([[7.0, -7, 1, -1, 3], [0, 7, -2, 2, -5]])
    q, scale, _ = ops.quantize(x, 4, True, -1)
    assert scale.tolist() == [1, 1]
    assert q.tolist() == [[0x97, 0xF1, 0x03], [0x70, 0x2E, 0x0B]]
    x = torch.tensor([[0.0, 15, 1, 14, 3], [-3, 12, 0, 2, 5]])
    q, scale, zero_point = ops.quantize(x, 4, False, -1)
    assert scale.tolist() == [1, 1] and zero_point.tolist() == [0, 3]
    assert q.tolist() == [[0xF0, 0xE1, 0x03], [0xF0, 0x53, 0x08]]


def test_eight_bits_use_the_whole_range(ops):
    x = torch.tensor([-127.0, 127, 0, -1, 64])
    assert ops.quantize(x)[0].tolist() == [-127, 127, 0, -1, 64]
    x = torch.tensor([-100.0, 155, 0, 27])
    q, scale, zero_point = ops.quantize(x, symmetric=False)
    assert scale.item() == 1 and zero_point.item() == -28
    assert q.tolist() == [-128, 127, -28, -1]


@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('group_size', [0, -1, 3])
@pytest.mark.parametrize('shape', [(), (0,), (5, 0), (0, 5), (2, 0, 3), (4, 7)], ids=str)
def test_zero_and_empty_groups_have_scale_one(ops, shape, group_size, bits, symmetric):
    x = torch.zeros(shape)
    parts = ops.quantize(x, bits, symmetric, group_size)
    check_parts(x, parts, bits, symmetric, group_size)
    assert bool((parts[1] == 1).all())
    y = ops.dequantize(*parts, shape, bits, group_size)
    assert same_bits(y, x)


def test_zero_dimensional_tensor_counts_as_one_element(ops):
    for group_size, scale_shape in ((0, ()), (-1, ()), (1, (1,)), (128, (1,))):
        q, scale, zero_point = ops.quantize(torch.tensor(-2.5), 8, True, group_size)
        assert tuple(q.shape) == (1,) and tuple(scale.shape) == scale_shape
        y = ops.dequantize(q, scale, zero_point, [], 8, group_size)
        assert y.shape == () and abs(y.item() + 2.5) <= 1e-6


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('symmetric', [True, False])
def test_the_largest_finite_values_do_not_overflow(ops, dtype, bits, symmetric):
    largest = torch.finfo(dtype).max
    for x in (torch.tensor([largest, -largest, 0, largest / 2], dtype=dtype),
              torch.tensor([largest, largest], dtype=dtype),
              torch.tensor([-largest, -largest / 3], dtype=dtype)):
        parts = ops.quantize(x, bits, symmetric)
        check_parts(x, parts, bits, symmetric, 0)
        y = ops.dequantize(*parts, x.shape, bits, 0, dtype)
        assert bool(torch.isfinite(y).all()), describe(y)
        off = (x.double() - y.double()).abs().max()
        assert float(off) <= 0.5 * float(parts[1]) * SLACK + largest * torch.finfo(dtype).eps / 2


def test_decoder_saturates_at_the_output_dtype(ops):
    parts = ops.quantize(torch.tensor([1e6, -1e6, 1.0]))
    y = ops.dequantize(*parts, [3], 8, 0, torch.float16)
    assert y.tolist() == [65504, -65504, 0]
    parts = ops.quantize(torch.tensor([3.4028235e38, -3.4028235e38, 1e30]))
    y = ops.dequantize(*parts, [3], 8, 0, torch.bfloat16)
    largest = torch.finfo(torch.bfloat16).max
    assert y[:2].tolist() == [largest, -largest]


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('group_size', [0, -1, 2])
def test_nan_and_infinities_are_refused_by_count_and_place(ops, dtype, group_size):
    x = torch.ones(3, 5, dtype=dtype)
    x[1, 2], x[2, 4], x[2, 0] = math.nan, math.inf, -math.inf
    for laid in (x, x.t().contiguous().t()):
        with pytest.raises(ValueError, match=r'qvlmem::quantize: .*\b3\b') as caught:
            ops.quantize(laid, 8, True, group_size)
        assert '[1, 2]' in str(caught.value) or ' 7' in str(caught.value)


@pytest.mark.parametrize('position', [0, 4303, 299999])
@pytest.mark.parametrize('group_size', [0, -1, 128])
def test_one_nan_anywhere_is_found(ops, position, group_size):
    x = torch.ones(300000)
    x[position] = math.nan
    with pytest.raises(ValueError, match=rf'\b1\b(.|\n)*\b{position}\b'):
        ops.quantize(x, 4, False, group_size)


@pytest.mark.parametrize('call', [
    lambda ops, x: ops.quantize(x, 5),
    lambda ops, x: ops.quantize(x, 16),
    lambda ops, x: ops.quantize(x, 0),
    lambda ops, x: ops.quantize(x, 8, True, -2),
    lambda ops, x: ops.quantize(x, 8, True, -2**63),
])
def test_bad_numbers_are_refused(ops, call):
    with pytest.raises(ValueError, match='qvlmem::quantize: expected '):
        call(ops, torch.ones(3, 5))


@pytest.mark.parametrize('group_size', [2**31, 2**62, 2**63 - 1])
def test_a_huge_group_is_one_group(ops, group_size):
    x = torch.randn(3, 5)
    whole = ops.quantize(x, 8, True, -1)
    huge = ops.quantize(x, 8, True, group_size)
    assert same_bits(huge[0], whole[0]) and huge[1].shape == (3, 1)
    assert same_bits(ops.dequantize(*huge, x.shape, 8, group_size),
                     ops.dequantize(*whole, x.shape, 8, -1))


GOOD = {'q': torch.ones(3, 5, dtype=torch.int8), 'scale': torch.ones(3),
        'zero_point': torch.empty(0, dtype=torch.int32), 'shape': [3, 5], 'bits': 8,
        'group_size': -1}
BAD_PARTS = [
    ('q', torch.ones(3, 5, dtype=torch.uint8), TypeError),
    ('q', torch.ones(3, 5), TypeError),
    ('q', torch.ones(3, 4, dtype=torch.int8), ValueError),
    ('q', torch.ones(0, dtype=torch.int8), ValueError),
    ('scale', torch.ones(2), ValueError),
    ('scale', torch.ones(()), ValueError),
    ('scale', torch.ones(3, dtype=torch.float64), TypeError),
    ('zero_point', torch.ones(2, dtype=torch.int32), ValueError),
    ('zero_point', torch.ones(3), TypeError),
    ('shape', [3, 6], ValueError),
    ('shape', [3, -5], ValueError),
    ('shape', [2**62, 2**62], ValueError),
    ('shape', [2**40, 2**20], ValueError),
    ('bits', 7, ValueError),
    ('bits', 4, (ValueError, TypeError)),
    ('group_size', -3, ValueError),
    ('group_size', 0, ValueError),
    ('dtype', torch.int32, TypeError),
    ('dtype', torch.complex64, TypeError),
]


@pytest.mark.parametrize(('name', 'value', 'error'), BAD_PARTS,
                         ids=[f'{i}-{b[0]}' for i, b in enumerate(BAD_PARTS)])
def test_parts_that_do_not_belong_together_are_refused(ops, name, value, error):
    ops.dequantize(**GOOD)
    with pytest.raises(error, match='qvlmem::dequantize: expected '):
        ops.dequantize(**{**GOOD, name: value})
