# SPDX-License-Identifier: Apache-2.0
"""to_fp16 and from_fp16 against their contract: the scale's range, what stays, what saturates."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from strategies import FLOATS, same_bits, tensors

pytestmark = pytest.mark.each_device

DTYPES = (*FLOATS, torch.float64)
# Half a unit in the last place of a normal half, and of a subnormal one before the scale.
RELATIVE, ABSOLUTE = 2.0**-11, 2.0**-25


def largest_finite(x):
    finite = x.abs()[x.isfinite()]
    return float(finite.max()) if finite.numel() else 0.0


def check_scale(x, scale):
    assert scale.numel() == 1
    assert scale.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
    value, largest = scale.item(), largest_finite(x)
    assert math.frexp(value)[0] == 0.5, f'{value} is no power of two'
    if x.dtype == torch.float16 or largest == 0:
        assert value == 1
        return
    least = torch.finfo(scale.dtype).smallest_normal
    assert value >= least and largest / value < 65520
    if value > least:
        assert largest / value >= 2**10


@given(tensors(dtypes=DTYPES, nonfinite=True))
def test_scale_and_halves_are_the_contract_s(ops, x):
    half, scale = ops.to_fp16(x)
    assert half.dtype == torch.float16 and half.shape == x.shape and half.is_contiguous()
    check_scale(x, scale)
    assert torch.equal(half.isnan(), x.isnan()) and torch.equal(half.isinf(), x.isinf())
    assert torch.equal(half.sign()[x.isinf()], x.sign()[x.isinf()].half())
    if x.dtype == torch.float16:
        assert same_bits(half, x.contiguous())
        return
    finite = x.isfinite()
    wanted = x[finite].double() / scale.double()
    off = (half[finite].double() - wanted).abs()
    assert bool((off <= (wanted.abs() * RELATIVE).clamp(min=ABSOLUTE)).all())
    zero = x == 0
    assert torch.equal(half[zero].signbit(), x[zero].signbit())


@given(tensors(dtypes=DTYPES, nonfinite=True), st.sampled_from((None, *DTYPES)))
def test_from_fp16_is_the_product_saturated(ops, x, dtype):
    half, scale = ops.to_fp16(x)
    y = ops.from_fp16(half, scale, dtype)
    out = dtype or torch.float32
    assert y.dtype == out and y.shape == x.shape and y.is_contiguous()
    assert torch.equal(y.isnan(), half.isnan()) and torch.equal(y.isinf(), half.isinf())
    largest = torch.finfo(out).max
    finite = half.isfinite()
    product = (half[finite].double() * scale.double()).clamp(-largest, largest)
    info = torch.finfo(out)
    rounding = (product.abs() * info.eps / 2).clamp(min=info.smallest_normal * info.eps / 2)
    single = 0 if out == torch.float64 else (product.abs() * 2.0**-24).clamp(min=2.0**-150)
    assert bool(((y[finite].double() - product).abs() <= rounding + single).all())


@given(tensors(dtypes=DTYPES, nonfinite=True))
def test_layout_in_memory_changes_nothing(ops, x):
    dense = x.clone(memory_format=torch.contiguous_format)
    for a, b in zip(ops.to_fp16(x), ops.to_fp16(dense), strict=True):
        assert same_bits(a, b)
    half, scale = ops.to_fp16(x)
    loose = torch.stack([half, torch.zeros_like(half)], dim=-1)[..., 0]
    assert same_bits(ops.from_fp16(loose, scale, x.dtype), ops.from_fp16(half, scale, x.dtype))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize('outlier', [1e-3, 1.0, 2**9, 2**20, 1e30])
@pytest.mark.parametrize('position', [0, 8192, 123457, 299999])
def test_one_large_value_anywhere_in_a_long_tensor(ops, dtype, outlier, position):
    """The scale may come from a sample; what the sample misses must not overflow."""
    x = torch.rand(300000).to(dtype)
    x[position] = outlier
    half, scale = ops.to_fp16(x)
    check_scale(x, scale)
    y = ops.from_fp16(half, scale, dtype)
    assert bool(torch.isfinite(y).all())
    assert abs(float(y[position]) - float(x[position])) <= abs(float(x[position])) * 2.0**-8


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_sample_of_zeros_in_a_long_tensor(ops, dtype):
    for value in (1e-5, 3.0, 1e9):
        x = torch.zeros(300000, dtype=dtype)
        x[200001] = value
        half, scale = ops.to_fp16(x)
        check_scale(x, scale)
        assert ops.from_fp16(half, scale, dtype)[200001].item() == pytest.approx(value, rel=1e-2)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_every_half_survives(ops, dtype):
    half = torch.arange(-2**15, 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    y = ops.from_fp16(half, torch.ones(()), dtype)
    want = half.to(dtype)
    assert torch.equal(y.nan_to_num(nan=7), want.nan_to_num(nan=7))
    assert torch.equal(y.isnan(), half.isnan())


def test_dtypes_extremes_do_not_overflow(ops):
    for dtype in DTYPES:
        largest = torch.finfo(dtype).max
        x = torch.tensor([largest, -largest, largest / 3, 0, math.inf, math.nan], dtype=dtype)
        half, scale = ops.to_fp16(x)
        check_scale(x, scale)
        assert bool(half[:4].isfinite().all())
        y = ops.from_fp16(half, scale, dtype)
        assert bool(y[:4].isfinite().all())
        assert bool(((y[:4] - x[:4]).abs() <= largest * 2.0**-8).all())


def test_decoder_saturates_at_the_output_dtype(ops):
    half = torch.tensor([1.0, -2.0, math.inf, 0.5], dtype=torch.float16)
    y = ops.from_fp16(half, torch.tensor(2.0**1000, dtype=torch.float64))
    largest = torch.finfo(torch.float32).max
    assert y.tolist() == [largest, -largest, math.inf, largest]
    y = ops.from_fp16(half, torch.tensor(2.0**17), torch.float16)
    assert y.tolist() == [65504, -65504, math.inf, 65504]


def test_scale_may_have_any_shape_of_one_element(ops):
    half = torch.ones(3, dtype=torch.float16)
    for shape in ((), (1,), (1, 1, 1)):
        assert ops.from_fp16(half, torch.full(shape, 4.0)).tolist() == [4, 4, 4]


@pytest.mark.parametrize('shape', [(), (0,), (3, 0)], ids=str)
def test_zero_and_empty_tensors_have_scale_one(ops, shape):
    for dtype in DTYPES:
        half, scale = ops.to_fp16(torch.zeros(shape, dtype=dtype))
        assert half.shape == shape and scale.item() == 1


@pytest.mark.parametrize('threads_used', [1, 2])
def test_threads_do_not_matter(ops, threads, threads_used):
    x = torch.randn(1_000_003)
    x[777_777] = 1e6
    threads(1)
    want = ops.to_fp16(x)
    threads(threads_used)
    assert all(same_bits(a, b) for a, b in zip(ops.to_fp16(x), want, strict=True))
