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

from strategies import (ALL_DTYPES, FLOATS, LAYOUTS, any_tensors, laid_out_bits, raw_bytes, same_bits,
                        tensors, values)

LEVELS = (1, 2)


def encode(x, level=1):
    return torch.ops.qvlmem.lossless_encode(x, level)


def decode(encoded, shape, dtype):
    return torch.ops.qvlmem.lossless_decode(encoded, shape, dtype)


def check_round_trip(x, level):
    encoded = encode(x, level)
    assert encoded.dtype == torch.uint8 and encoded.dim() == 1 and encoded.is_contiguous()
    assert encoded.untyped_storage().nbytes() == encoded.numel()
    assert encoded.numel() <= x.nbytes * 1.005 + 64
    y = decode(encoded, x.shape, x.dtype)
    assert y.is_contiguous() and same_bits(x, y)
    return encoded


@given(any_tensors(), st.sampled_from(LEVELS))
def test_every_bit_of_every_dtype_comes_back(x, level):
    check_round_trip(x, level)


@given(tensors(dtypes=FLOATS + (torch.float64,), nonfinite=True), st.sampled_from(LEVELS))
def test_floats_come_back_with_all_their_special_values(x, level):
    check_round_trip(x, level)


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('dtype', ALL_DTYPES, ids=str)
def test_all_patterns_of_bits_come_back(dtype, level):
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.uint8)
    if dtype == torch.bool:
        bits = bits & 1
    x = bits.repeat(dtype.itemsize // math.gcd(dtype.itemsize, 2)).view(dtype)
    check_round_trip(x, level)


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_layout_does_not_show(layout, level):
    for dtype in ALL_DTYPES:
        bits = torch.arange(24 * 31 * dtype.itemsize, dtype=torch.int64).to(torch.uint8)
        if dtype == torch.bool:
            bits = bits & 1
        x = laid_out_bits(bits.view(dtype).reshape(24, 31), layout)
        dense = raw_bytes(x).view(x.dtype).reshape(x.shape)
        assert torch.equal(encode(x, level), encode(dense, level))


def test_conjugate_and_negative_views_count_as_their_values():
    x = torch.randn(7, 9, dtype=torch.complex64)
    for view in (x.conj(), x.conj().imag, torch._neg_view(x.real)):
        check_round_trip(view, 1)


@pytest.mark.parametrize('level', LEVELS)
def test_several_units_in_any_number_of_threads(level):
    x = values('normal', (700, 1001), torch.bfloat16)
    encoded = check_round_trip(x, level)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(check_round_trip(x, level), encoded)
    finally:
        torch.set_num_threads(before)


def test_the_ratios_that_weights_have():
    x = values('normal', (512, 1024), torch.bfloat16, exponent=-5)
    assert x.nbytes / encode(x, 1).numel() >= 1.35
    assert x.nbytes / encode(x, 2).numel() >= 1.50
    widened = x.float()  # a float32 tensor that holds bfloat16 values costs what these cost
    for level in LEVELS:
        assert encode(widened, level).numel() <= 1.01 * encode(x, level).numel()


@given(any_tensors(shape=(40,), layouts=('contiguous',)), st.sampled_from(LEVELS))
def test_another_shape_or_dtype_is_refused(x, level):
    encoded = encode(x, level)
    assert same_bits(decode(encoded, (5, 8), x.dtype), x.reshape(5, 8))
    with pytest.raises(ValueError, match='expected shape to have 40 elements.*got'):
        decode(encoded, (41,), x.dtype)
    for dtype in ALL_DTYPES:
        if dtype != x.dtype:
            with pytest.raises(TypeError, match='expected dtype to be .*which the bytes hold, got'):
                decode(encoded, (40,), dtype)


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.int32, torch.bool), ids=str)
def test_damage_at_every_byte_is_refused_or_gives_a_tensor(dtype, level):
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 2 if dtype == torch.bool else 50, (300,), generator=generator).to(dtype)
    good = encode(x, level)
    header_bytes, noticed = 16, 0
    for at in range(good.numel()):
        for flip in (1, 128, 255):
            bad = good.clone()
            bad[at] ^= flip
            try:
                y = decode(bad, x.shape, dtype)
                assert y.shape == x.shape and y.dtype == dtype
                assert at >= header_bytes
            except (ValueError, TypeError) as error:
                assert 'qvlmem::lossless_decode' in str(error)
                noticed += 1
    assert noticed > 3 * header_bytes


@pytest.mark.parametrize('level', LEVELS)
def test_bytes_that_end_early_or_late_are_refused(level):
    x = values('normal', (123,), torch.float16)
    good = encode(x, level)
    for size in range(good.numel()):
        with pytest.raises(ValueError, match='end too early'):
            decode(good[:size], x.shape, x.dtype)
    with pytest.raises(ValueError, match='damaged'):
        decode(torch.cat([good, good[:1]]), x.shape, x.dtype)


def test_a_newer_version_is_told_from_damage():
    bad = encode(torch.zeros(3))
    bad[3] += 1
    with pytest.raises(ValueError, match='newer version'):
        decode(bad, (3,), torch.float32)


def test_bytes_may_lie_anywhere():
    x = values('normal', (5000,), torch.bfloat16)
    good = encode(x, 2)
    apart = torch.stack([good, good], dim=1)[:, 1]
    shifted = torch.cat([good.new_zeros(7), good])[7:]
    assert not apart.is_contiguous()
    for encoded in (apart, shifted):
        assert same_bits(decode(encoded, x.shape, x.dtype), x)


def test_an_encoded_tensor_shrinks_and_grows_like_any_other():
    encoded = encode(torch.zeros(100000))
    encoded.resize_(encoded.numel() + 100000).fill_(3)
    assert int(encoded.sum()) == 3 * encoded.numel()


def test_opcheck():
    for x in (torch.randn(6, 33), torch.zeros(3, 4, dtype=torch.bool), torch.empty(0, 5)):
        for level in LEVELS:
            torch.library.opcheck(torch.ops.qvlmem.lossless_encode.default, (x, level))
        torch.library.opcheck(torch.ops.qvlmem.lossless_decode.default, (encode(x), x.shape, x.dtype))


def test_fake_kernels_check_what_they_can():
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode():
        with pytest.raises(Exception, match='expected level to be 1 or 2, got 3'):
            encode(torch.zeros(3), 3)


@pytest.mark.parametrize('dtype', ALL_DTYPES, ids=str)
def test_the_method_lossless_takes_every_dtype(dtype):
    bits = torch.arange(2000 * dtype.itemsize, dtype=torch.int64).to(torch.uint8) & 1
    x = bits.view(dtype).reshape(50, 40)
    c = torch.ops.qvlmem.compress(x, 'lossless')
    assert c.method() == 'lossless' and c.relative_error() == 0
    assert c.nbytes() <= encode(x, 1).numel()
    frame = torch.ops.qvlmem.pack(c)
    assert same_bits(torch.ops.qvlmem.decompress(torch.ops.qvlmem.unpack(frame)), x)
