# SPDX-License-Identifier: Apache-2.0
"""compress by auto: never over its bound, never larger than a method that meets it."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from strategies import (ERRORS, EXACT_DTYPES, FLOATS, any_tensors, laid_out, row_error, same_bits,
                        shapes, tensors, values)
from test_compress import EXACT, METHODS, check_compressed, check_reported

pytestmark = pytest.mark.each_device

BOUNDS = st.sampled_from(tuple(ERRORS))
MAX_ERRORS = st.sampled_from((0.0, 1e-7, 1e-4, 0.01, 0.03, 0.1, 0.5, 1.0))
MORE = settings(max_examples=2 * settings.default.max_examples)


@MORE
@given(tensors(), BOUNDS, MAX_ERRORS)
def test_never_over_its_bound(ops, x, bound, max_error):
    c = ops.compress(x, 'auto', max_error=max_error, bound=bound)
    assert c.method() in METHODS
    y = check_compressed(ops, c, x)
    assert ERRORS[bound](x, y) <= max_error * (1 + 1e-12)
    check_reported(c, x, y)
    reported = {'tensor': c.relative_error(), 'row': c.worst_row_error(),
                'element': c.max_element_error()}[bound]
    assert 0 <= reported <= max_error


# What a caller may have set for a named method; auto must not be held back by it.
OPTIONS = st.sampled_from(({}, {}, {'group_size': 1}, {'group_size': 0, 'symmetric': False},
                           {'sparsity_threshold': 1.0},
                           {'adaptive_rank': False, 'compression_ratio': 0.01}))


@MORE
@given(tensors(shape=shapes(max_numel=9000)), BOUNDS, MAX_ERRORS, OPTIONS)
def test_never_larger_than_a_named_method_that_meets_the_bound(ops, x, bound, max_error, options):
    size = ops.compress(x, max_error=max_error, bound=bound, **options).nbytes()
    for method in METHODS:
        try:
            c = ops.compress(x, method)
        except ValueError:  # svd, where its factors would overflow
            assert method == 'svd'
            continue
        y = ops.decompress(c)
        if same_bits(x, y) if max_error == 0 else ERRORS[bound](x, y) <= max_error:
            assert size <= c.nbytes(), f'{method} takes {c.nbytes()} bytes, auto {size}'
    if max_error > 0:
        c = ops.compress(x, 'bounded', max_error=max_error, bound=bound)
        assert size <= c.nbytes(), f'bounded to the same error takes {c.nbytes()}, auto {size}'


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
def test_factors_that_give_every_bit_back_are_not_passed_over(ops, dtype):
    x = torch.full((2, 3), 1.2998, dtype=dtype)
    c = ops.compress(x, 'svd')
    assert same_bits(ops.decompress(c), x)
    for max_error in (1e-7, 1e-4, 1e-2):
        assert ops.compress(x, max_error=max_error).nbytes() <= c.nbytes()


@pytest.mark.parametrize(('rows', 'columns', 'low', 'high'), [(600, 600, 1.06, 1.08), (900, 600, 1.035, 1.055)])
def test_a_rank_that_just_pays_is_not_passed_over(ops, rows, columns, low, high):
    """Where svd is a little smaller than what else meets the bound, it must not be refused for want of directions."""
    u, v = (torch.linalg.qr(torch.randn(n, 600)).Q for n in (rows, columns))
    taken = []
    for power in torch.linspace(low, high, 21).tolist():
        x = u * torch.arange(1, 601) ** -power @ v.T
        svd, auto = ops.compress(x, 'svd'), ops.compress(x, max_error=0.1)
        assert svd.relative_error() <= 0.1 and auto.nbytes() <= svd.nbytes()
        taken.append(auto.method() == 'svd')
    assert not taken[0] and taken[-1]


@pytest.mark.parametrize(('a', 'b', 'sign'), [(74, 53, -1), (30, 12, 1), (83, 82, 1)])
def test_columns_that_cancel_in_many_samples_are_not_passed_over(ops, a, b, sign):
    x = torch.zeros(2000, 100)
    x[:, a] = torch.randn(2000)
    x[:, b] = sign * x[:, a]
    assert ops.compress(x, max_error=1e-6).nbytes() <= ops.compress(x, 'svd').nbytes()


@given(tensors(nonfinite=True), BOUNDS)
def test_no_error_allowed_means_every_bit(ops, x, bound):
    c = ops.compress(x, max_error=0.0, bound=bound)
    assert same_bits(check_compressed(ops, c, x), x)
    assert c.relative_error() == 0


@MORE
@given(tensors(nonfinite=True), BOUNDS, MAX_ERRORS)
def test_what_is_not_finite_is_kept_bit_by_bit(ops, x, bound, max_error):
    c = ops.compress(x, max_error=max_error, bound=bound)
    y = check_compressed(ops, c, x)
    finite = torch.isfinite(x)
    assert torch.equal(torch.isfinite(y), finite)
    assert same_bits(x[~finite], y[~finite])
    zero = torch.zeros((), dtype=x.dtype)
    error = ERRORS[bound](torch.where(finite, x, zero), torch.where(finite, y, zero))
    assert error <= max_error * (1 + 1e-12)


def test_nan_payloads_survive(ops):
    payloads = torch.tensor([0x7FC00001, 0x7F800001, -0x3FFFFF, -1, 0x7FFFFFFF], dtype=torch.int32)
    x = torch.randn(64, 128)
    x.view(-1)[torch.tensor([0, 5, 777, 4000, 8191])] = payloads.view(torch.float32)
    for bound in ERRORS:
        y = ops.decompress(ops.compress(x, max_error=0.1, bound=bound))
        assert torch.equal(y.view(torch.int32)[x.isnan()], x.view(torch.int32)[x.isnan()])


@given(any_tensors(dtypes=EXACT_DTYPES), MAX_ERRORS, BOUNDS)
def test_other_dtypes_are_stored_bit_by_bit(ops, x, max_error, bound):
    c = ops.compress(x, max_error=max_error, bound=bound)
    assert c.method() in EXACT
    assert same_bits(check_compressed(ops, c, x), x)


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('max_error', [0.001, 0.01, 0.05, 0.5])
def test_one_row_cannot_hide_behind_another(ops, dtype, max_error):
    """Rows of very different sizes: a bound a row holds for the least of them."""
    x = values('normal', (64, 129), torch.float32)
    x *= torch.logspace(-4, 3, 64).unsqueeze(1)
    x[7] = 0
    x[9, 1:] = 0
    x = x.to(dtype)
    y = ops.decompress(ops.compress(x, max_error=max_error, bound='row'))
    assert row_error(x, y) <= max_error * (1 + 1e-12)
    assert not y[7].any()


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('bound', tuple(ERRORS))
def test_a_sample_must_not_mislead(ops, dtype, bound):
    """What decides lies outside any small sample: one element, one row, the last block."""
    x = values('normal', (400, 333), torch.float32, seed=2)
    hard = [x.clone() for _ in range(4)]
    hard[0][311, 17] = 3e4
    hard[1][:, :300] = 0
    hard[2][-1] *= 1e-6
    hard[3][:250] = 1
    for y, layout in zip(hard, ('contiguous', 'transposed', 'strided', 'offset'), strict=True):
        y = laid_out(y.to(dtype), layout)
        z = ops.decompress(ops.compress(y, max_error=0.01, bound=bound))
        assert ERRORS[bound](y, z) <= 0.01 * (1 + 1e-12)


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
def test_what_is_worth_compressing_is_compressed(ops, dtype):
    """Figures a user would expect at the default of 1%, each with room to spare."""
    normal = values('normal', (128, 512), dtype)
    sparse = values('normal', (128, 512), dtype)
    sparse[torch.rand(sparse.shape) < 0.95] = 0
    low_rank = values('low_rank', (128, 16), dtype) @ values('low_rank', (16, 512), dtype)
    constant = torch.full((128, 512), 1.25, dtype=dtype)
    wide = dtype.itemsize / 4
    for x, ratio in ((normal, 3.5 * wide), (sparse, 10 * wide), (low_rank, 3.5 * wide),
                     (constant, 8 * wide), (torch.zeros_like(normal), 50 * wide)):
        assert ops.compress(x).ratio() >= ratio


@given(tensors(), BOUNDS)
def test_auto_is_the_default_method(ops, x, bound):
    a, b = ops.compress(x, bound=bound), ops.compress(x, 'auto', bound=bound)
    assert a.method() == b.method() and torch.equal(ops.pack(a), ops.pack(b))


def test_looser_bounds_are_never_larger(ops):
    for kind in ('normal', 'outliers', 'low_rank', 'sparse', 'mean'):
        x = values(kind, (32, 200), torch.float32)
        for bound in ERRORS:
            sizes = [ops.compress(x, max_error=e, bound=bound).nbytes()
                     for e in (0.0, 1e-5, 1e-3, 1e-2, 0.05, 0.2, 1.0)]
            assert sizes == sorted(sizes, reverse=True), (kind, bound, sizes)
