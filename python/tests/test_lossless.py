# SPDX-License-Identifier: Apache-2.0
"""lossless_encode and lossless_decode: every bit of every dtype comes back, and no damage goes unsaid.

What a damaged stream decodes to is not defined; that it ends, stays inside its memory and gives a
tensor of the right form or a ValueError is.
"""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from cuda_device import on
from strategies import (ALL_DTYPES, FLOATS, LAYOUTS, any_tensors, laid_out_bits, raw_bytes, same_bits,
                        tensors, values)

pytestmark = pytest.mark.each_device

LEVELS = (1, 2)


def check_round_trip(ops, x, level):
    encoded = ops.lossless_encode(x, level)
    assert encoded.dtype == torch.uint8 and encoded.dim() == 1 and encoded.is_contiguous()
    assert encoded.untyped_storage().nbytes() == encoded.numel()
    assert encoded.numel() <= x.nbytes * 1.005 + 64
    y = ops.lossless_decode(encoded, x.shape, x.dtype)
    assert y.is_contiguous() and same_bits(x, y)
    return encoded


@given(any_tensors(), st.sampled_from(LEVELS))
def test_every_bit_of_every_dtype_comes_back(ops, x, level):
    check_round_trip(ops, x, level)


@given(tensors(dtypes=FLOATS + (torch.float64,), nonfinite=True), st.sampled_from(LEVELS))
def test_floats_come_back_with_all_their_special_values(ops, x, level):
    check_round_trip(ops, x, level)


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('dtype', ALL_DTYPES, ids=str)
def test_all_patterns_of_bits_come_back(ops, dtype, level):
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.uint8)
    if dtype == torch.bool:
        bits = bits & 1
    x = bits.repeat(dtype.itemsize // math.gcd(dtype.itemsize, 2)).view(dtype)
    check_round_trip(ops, x, level)


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_layout_does_not_show(ops, layout, level):
    for dtype in ALL_DTYPES:
        bits = torch.arange(24 * 31 * dtype.itemsize, dtype=torch.int64).to(torch.uint8)
        if dtype == torch.bool:
            bits = bits & 1
        x = laid_out_bits(bits.view(dtype).reshape(24, 31), layout)
        dense = raw_bytes(x).view(x.dtype).reshape(x.shape)
        assert torch.equal(ops.lossless_encode(x, level), ops.lossless_encode(dense, level))


def test_conjugate_and_negative_views_count_as_their_values(ops):
    x = torch.randn(7, 9, dtype=torch.complex64)
    for view in (x.conj(), x.conj().imag, torch._neg_view(x.real)):
        check_round_trip(ops, view, 1)


@pytest.mark.parametrize('level', LEVELS)
def test_several_units_in_any_number_of_threads(ops, level):
    x = values('normal', (700, 1001), torch.bfloat16)
    encoded = check_round_trip(ops, x, level)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(check_round_trip(ops, x, level), encoded)
    finally:
        torch.set_num_threads(before)


def test_the_ratios_that_weights_have(ops):
    x = values('normal', (512, 1024), torch.bfloat16, exponent=-5)
    assert x.nbytes / ops.lossless_encode(x, 1).numel() >= 1.35
    assert x.nbytes / ops.lossless_encode(x, 2).numel() >= 1.50
    widened = x.float()  # a float32 tensor that holds bfloat16 values costs what these cost
    for level in LEVELS:
        assert ops.lossless_encode(widened, level).numel() <= 1.01 * ops.lossless_encode(x, level).numel()


@given(any_tensors(shape=(40,), layouts=('contiguous',)), st.sampled_from(LEVELS))
def test_another_shape_or_dtype_is_refused(ops, x, level):
    encoded = ops.lossless_encode(x, level)
    assert same_bits(ops.lossless_decode(encoded, (5, 8), x.dtype), x.reshape(5, 8))
    with pytest.raises(ValueError, match='expected shape to have 40 elements.*got'):
        ops.lossless_decode(encoded, (41,), x.dtype)
    for dtype in ALL_DTYPES:
        if dtype != x.dtype:
            with pytest.raises(TypeError, match='expected dtype to be .*which the bytes hold, got'):
                ops.lossless_decode(encoded, (40,), dtype)


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.int32, torch.bool), ids=str)
def test_damage_at_every_byte_is_refused_or_gives_a_tensor(ops, dtype, level):
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 2 if dtype == torch.bool else 50, (300,), generator=generator).to(dtype)
    good = ops.lossless_encode(x, level)
    header_bytes, noticed = 16, 0
    for at in range(good.numel()):
        for flip in (1, 128, 255):
            bad = good.clone()
            bad[at] ^= flip
            try:
                y = ops.lossless_decode(bad, x.shape, dtype)
                assert y.shape == x.shape and y.dtype == dtype
                assert at >= header_bytes
            except (ValueError, TypeError) as error:
                assert 'qvlmem::lossless_decode' in str(error)
                noticed += 1
    assert noticed > 3 * header_bytes


@pytest.mark.parametrize('level', LEVELS)
def test_bytes_that_end_early_or_late_are_refused(ops, level):
    x = values('normal', (123,), torch.float16)
    good = ops.lossless_encode(x, level)
    for size in range(good.numel()):
        with pytest.raises(ValueError, match='end too early'):
            ops.lossless_decode(good[:size], x.shape, x.dtype)
    with pytest.raises(ValueError, match='damaged'):
        ops.lossless_decode(torch.cat([good, good[:1]]), x.shape, x.dtype)


def test_a_newer_version_is_told_from_damage(ops):
    bad = ops.lossless_encode(torch.zeros(3))
    bad[3] += 1
    with pytest.raises(ValueError, match='newer version'):
        ops.lossless_decode(bad, (3,), torch.float32)


def test_bytes_may_lie_anywhere(ops):
    x = values('normal', (5000,), torch.bfloat16)
    good = ops.lossless_encode(x, 2)
    apart = torch.stack([good, good], dim=1)[:, 1]
    assert not apart.is_contiguous()
    assert same_bits(ops.lossless_decode(apart, x.shape, x.dtype), x)


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float32, torch.int64), ids=str)
def test_bytes_need_no_alignment(ops, dtype, level):
    x = values('normal', (70000,), torch.float32).to(dtype)
    good = ops.lossless_encode(x, level)
    for offset in (1, 2, 7, 16):
        shifted = torch.cat([good.new_zeros(offset), good])[offset:]
        assert same_bits(ops.lossless_decode(shifted, x.shape, dtype), x)


def test_an_encoded_tensor_shrinks_and_grows_like_any_other(device):
    encoded = torch.ops.qvlmem.lossless_encode(on(device, torch.zeros(100000)))
    encoded.resize_(encoded.numel() + 100000).fill_(3)
    assert int(encoded.sum()) == 3 * encoded.numel()


def test_opcheck(device):
    encode, decode = torch.ops.qvlmem.lossless_encode, torch.ops.qvlmem.lossless_decode
    for x in (torch.randn(6, 33), torch.zeros(3, 4, dtype=torch.bool), torch.empty(0, 5)):
        x = on(device, x)
        for level in LEVELS:
            torch.library.opcheck(encode.default, (x, level))
        torch.library.opcheck(decode.default, (encode(x), x.shape, x.dtype))


def test_fake_kernels_check_what_they_can():
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode():
        with pytest.raises(Exception, match='expected level to be 1 or 2, got 3'):
            torch.ops.qvlmem.lossless_encode(torch.zeros(3), 3)


@pytest.mark.parametrize('dtype', ALL_DTYPES, ids=str)
def test_the_method_lossless_takes_every_dtype(ops, dtype):
    bits = torch.arange(2000 * dtype.itemsize, dtype=torch.int64).to(torch.uint8) & 1
    x = bits.view(dtype).reshape(50, 40)
    c = ops.compress(x, 'lossless')
    assert c.method() == 'lossless' and c.relative_error() == 0
    assert c.nbytes() <= ops.lossless_encode(x, 1).numel()
    frame = ops.pack(c)
    assert same_bits(ops.decompress(ops.unpack(frame)), x)
