# SPDX-License-Identifier: Apache-2.0
"""svd and svd_reconstruct against the full decomposition in float64."""

import math

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from strategies import FLOATS, LAYOUTS, as_rows, laid_out, same_bits, shapes, tensor_error, values

pytestmark = pytest.mark.each_device

# What rounding one factor to x's dtype may cost, relative to x; two factors, and some room.
ROUNDING = {torch.float32: 2.0**-20, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}
# Magnitudes whose factors fit in float16, and whose values do not all vanish in it.
EXPONENTS = {torch.float32: (-120, -100, -10, 0, 10, 100), torch.float16: (-3, 0, 3),
             torch.bfloat16: (-100, -10, 0, 10, 100)}


def kept_energy(x):
    """kept[r]: the share of energy that the leading r singular values of x hold; kept[0] is 0."""
    squares = torch.linalg.svdvals(as_rows(x).to(torch.float64)).square()
    return torch.cat([squares.new_zeros(1), squares.cumsum(0) / squares.sum()])


def smallest_rank(x, energy):
    kept = kept_energy(x)
    return max(int((kept < energy - 1e-9).sum()), 1)


def check_factors(x, u, v):
    """Shapes, dtypes, orthonormal rows; returns the rank."""
    rows, columns = as_rows(x).shape
    rank = u.shape[1]
    assert u.dtype == v.dtype == x.dtype
    assert u.shape == (rows, rank) and v.shape == (rank, columns)
    assert u.is_contiguous() and v.is_contiguous()
    assert min(1, rows, columns) <= rank <= min(rows, columns)
    gram = v.double() @ v.double().T
    assert (gram - torch.eye(rank, dtype=torch.float64)).abs().max() <= ROUNDING[x.dtype] \
        if rank else True
    return rank


@st.composite
def matrices(draw, kinds=('normal', 'low_rank', 'sparse', 'constant', 'zeros')):
    """Tensors of up to 3 dimensions, finite, whose factors fit in their dtype."""
    dtype = draw(st.sampled_from(FLOATS))
    x = values(draw(st.sampled_from(kinds)), draw(shapes()), dtype, draw(st.integers(0, 5)),
               draw(st.sampled_from(EXPONENTS[dtype])))
    hypothesis.assume(not x.numel() or x.double().norm() < torch.finfo(dtype).max)
    return laid_out(x, draw(st.sampled_from(LAYOUTS)))


@given(x=matrices(), energy=st.sampled_from((0.3, 0.9, 0.99, 0.9999, 1.0)), seed=st.integers(-2, 2))
def test_energy_is_kept_by_the_smallest_rank(ops, x, energy, seed):
    u, v = ops.svd(x, energy=energy, seed=seed)
    rank = check_factors(x, u, v)
    y = ops.svd_reconstruct(u, v, x.shape)
    assert y.shape == x.shape and y.dtype == torch.float32 and y.is_contiguous()
    if not x.numel() or not x.any():
        assert rank == min(1, x.numel()) and not y.any()
        return
    if energy < 1:
        best = smallest_rank(x, energy)
        assert best - 1 <= rank <= best + max(1, best // 20)
        assert rank >= best or kept_energy(x)[rank] >= energy - 1e-7
    assert tensor_error(x, y) <= math.sqrt(1 - energy) + ROUNDING[x.dtype]


@given(x=matrices(), share=st.floats(0.01, 1.0), seed=st.integers(0, 1))
def test_ratio_is_the_largest_rank_that_fits(ops, x, share, seed):
    u, v = ops.svd(x, adaptive_rank=False, compression_ratio=share, seed=seed)
    rank = check_factors(x, u, v)
    rows, columns = as_rows(x).shape
    if not x.numel() or not x.any():
        assert rank == min(1, x.numel())
        return
    assert rank == 1 or u.nbytes + v.nbytes <= share * x.nbytes
    assert rank == min(rows, columns) or \
        (rank + 1) * (rows + columns) * x.itemsize > share * x.nbytes
    best = math.sqrt(max(0.0, 1 - float(kept_energy(x)[rank])))
    assert tensor_error(x, ops.svd_reconstruct(u, v, x.shape)) <= 1.05 * best + ROUNDING[x.dtype]


@given(x=matrices(), data=st.data())
def test_rank_overrides_both(ops, x, data):
    most = min(as_rows(x).shape)
    rank = data.draw(st.integers(min(1, most), most))
    u, v = ops.svd(x, data.draw(st.booleans()), 0.01, 0.01, rank)
    assert check_factors(x, u, v) == rank
    if x.numel() and x.any():
        best = math.sqrt(max(0.0, 1 - float(kept_energy(x)[rank])))
        y = ops.svd_reconstruct(u, v, x.shape)
        assert tensor_error(x, y) <= 1.05 * best + ROUNDING[x.dtype]


@pytest.mark.parametrize('shape', [(220, 180), (90, 700), (700, 90), (6, 50, 144)])
@pytest.mark.parametrize('spectrum', ['exp', 'power', 'cliff', 'flat'])
def test_larger_matrices_than_a_full_decomposition_is_for(ops, shape, spectrum):
    rows, columns = math.prod(shape[:-1]), shape[-1]
    count = min(rows, columns)
    i = torch.arange(1, count + 1, dtype=torch.float64)
    singular = {'exp': torch.exp(-i / 8), 'power': 1 / i, 'cliff': (i <= 25) + 1e-3,
                'flat': torch.ones_like(i)}[spectrum]
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(size, count, generator=generator,
                                               dtype=torch.float64))[0] for size in (rows, columns))
    x = ((left * singular) @ right.T).float().reshape(shape)
    for energy in (0.9, 0.99, 0.9999, 1 - 1e-6, 1 - 1e-9):
        u, v = ops.svd(x, energy=energy)
        best = smallest_rank(x, energy + 1e-9)
        assert best - 1 <= check_factors(x, u, v) <= best + max(1, best // 20)
        assert tensor_error(as_rows(x), u.double() @ v.double()) <= math.sqrt(1 - energy) * (1 + 1e-6)
        y = ops.svd_reconstruct(u, v, shape)
        assert tensor_error(as_rows(y), u.double() @ v.double()) <= 1e-6


# In bfloat16 products are made in panels, of which more threads have longer ones.
@pytest.mark.parametrize(('shape', 'dtype'), [((150, 170), torch.float32), ((3000, 700), torch.bfloat16),
                                              ((700, 3000), torch.bfloat16)])
def test_seed_and_threads(ops, shape, dtype):
    x = (values('low_rank', shape, torch.float32) + 0.01 * values('normal', shape, torch.float32)).to(dtype)
    before = torch.get_num_threads()
    try:
        for keywords in ({}, {'energy': 0.9999}, {'energy': 1.0}, {'rank': 9},
                         {'adaptive_rank': False}):
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found += [ops.svd(x, seed=5, **keywords) for _ in range(2)]
            for u, v in found[1:]:
                assert same_bits(u, found[0][0]) and same_bits(v, found[0][1])
    finally:
        torch.set_num_threads(before)
    assert not same_bits(ops.svd(x, rank=9, seed=5)[0], ops.svd(x, rank=9, seed=6)[0])


@pytest.mark.parametrize(('kind', 'shape'), [('normal', (120, 130)), ('low_rank', (300, 200))])
def test_autocast_and_matmul_precision_change_nothing(ops, device, kind, shape):
    x = values(kind, shape, torch.float32)
    u, v = ops.svd(x, energy=0.9999)
    y = ops.svd_reconstruct(u, v, x.shape)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision('medium')
        with torch.autocast(device, dtype=torch.bfloat16):
            u2, v2 = ops.svd(x, energy=0.9999)
            assert same_bits(u, u2) and same_bits(v, v2)
            assert same_bits(y, ops.svd_reconstruct(u, v, x.shape))
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize('shape', [(), (1,), (7,), (1, 7), (7, 1), (1, 1, 1), (0,), (3, 0), (0, 3),
                                   (2, 0, 3), (2, 3, 4)])
@pytest.mark.parametrize('dtype', FLOATS)
def test_shapes_without_room_for_more_than_a_rank_or_two(ops, shape, dtype):
    x = values('normal', shape, dtype)
    u, v = ops.svd(x, energy=1.0)
    check_factors(x, u, v)
    y = ops.svd_reconstruct(u, v, shape, dtype)
    assert y.shape == x.shape and y.dtype == dtype
    assert tensor_error(x, y) <= ROUNDING[dtype]
    if not x.numel():
        assert ops.svd(x, rank=0)[0].shape[1] == 0
        with pytest.raises(ValueError, match='rank'):
            ops.svd(x, rank=1)


@pytest.mark.parametrize('scale', [1e-40, 1e-38, 1e-30, 1e-20, 1e20, 1e30, 1e36])
def test_squares_that_leave_float32(ops, scale):
    x = (values('low_rank', (80, 100), torch.float64) * scale).float()
    u, v = ops.svd(x, energy=0.999)
    best = smallest_rank(x, 0.999)
    assert best - 1 <= check_factors(x, u, v) <= best + 1
    assert tensor_error(x, ops.svd_reconstruct(u, v, x.shape)) <= math.sqrt(0.001) * 1.05
    assert torch.isfinite(ops.svd(x, rank=80)[0]).all()


@pytest.mark.parametrize(('x', 'dtype'), [
    (torch.full((90, 100), 60000.0), torch.float16), (torch.full((3, 4), 60000.0), torch.float16),
    (torch.full((4, 4), 3e38), torch.float32), (torch.full((4, 4), 3e38), torch.bfloat16)])
def test_factors_that_would_overflow_are_refused(ops, x, dtype):
    for keywords in ({}, {'rank': 2}, {'adaptive_rank': False}):
        with pytest.raises(ValueError, match=rf'u.*{str(dtype)[6:]}'):
            ops.svd(x.to(dtype), **keywords)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('dtype', FLOATS)
def test_what_is_not_finite_is_counted_and_located(ops, value, dtype):
    x = torch.ones(5, 7, 80, dtype=dtype)
    x[2, 6, 33] = x[4, 0, 0] = value
    for keywords in ({}, {'rank': 1}, {'adaptive_rank': False}):
        with pytest.raises(ValueError, match=r'2 values.*\[2, 6, 33\]'):
            ops.svd(x, **keywords)


@pytest.mark.parametrize('dtype', FLOATS)
def test_reconstruct_saturates(ops, dtype):
    u, v = torch.full((5, 2), 3e38), torch.tensor([[0.9, -0.9, 0.0], [0.9, -0.9, 0.0]])
    largest = torch.finfo(dtype).max
    want = torch.tensor([largest, -largest, 0.0], dtype=torch.float64).expand(5, 3)
    assert torch.equal(ops.svd_reconstruct(u, v, (5, 3), dtype).double(), want)
    # Sums whose parts overflow where they do not.
    parts = torch.tensor([[3e38, 3e38, -3e38, -3e38]])
    assert ops.svd_reconstruct(parts, torch.ones(4, 1), (), dtype).item() == 0
    # Finite factors alone do.
    infinite = torch.full((1, 1), math.inf)
    assert ops.svd_reconstruct(infinite, torch.ones(1, 1), (), dtype).item() == math.inf
    y = ops.svd_reconstruct(torch.full((600, 2), 3e38), torch.full((2, 700), 0.9), [600, 700], dtype)
    assert bool((y == largest).all())


@pytest.mark.parametrize(('u', 'v', 'shape'), [
    ((6, 2), (2, 4), (6, 5)), ((6, 2), (2, 4), (5, 4)), ((6, 2), (3, 4), (6, 4)),
    ((12,), (2, 4), (6, 4)), ((6, 2), (8,), (6, 4)), ((6, 2), (2, 4), (2, -3, 4)),
    ((6, 2), (2, 4), (2**62, 4)), ((6, 2), (2, 4), ()), ((0, 0), (0, 4), (2**40, 2**40, 0, 4))])
def test_factors_that_do_not_fit_are_refused(ops, u, v, shape):
    with pytest.raises(ValueError, match='qvlmem::svd_reconstruct: expected'):
        ops.svd_reconstruct(torch.ones(u), torch.ones(v), shape)


def test_reconstruct_without_a_rank_is_zero(ops):
    assert same_bits(ops.svd_reconstruct(torch.ones(6, 0), torch.ones(0, 4), (2, 3, 4)),
                     torch.zeros(2, 3, 4))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_reconstruct_takes_any_strides(ops, layout):
    u, v = values('normal', (6, 3), torch.float32), values('normal', (3, 5), torch.float32)
    u, v = laid_out(u, layout), laid_out(v, layout)
    assert same_bits(ops.svd_reconstruct(u, v, (6, 5)),
                     ops.svd_reconstruct(u.contiguous(), v.contiguous(), (6, 5)))


def test_auto_takes_svd_where_the_rank_is_low(ops):
    generator = torch.Generator().manual_seed(2)
    low = torch.randn(400, 3, generator=generator) @ torch.randn(3, 300, generator=generator)
    c = ops.compress(low, max_error=0.01)
    assert c.method() == 'svd' and c.relative_error() <= 0.01
    assert ops.compress(torch.randn(400, 300, generator=generator), max_error=0.01).method() != 'svd'
