# SPDX-License-Identifier: Apache-2.0
"""pack and unpack: every method and dtype goes through, and nothing that was damaged does."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from strategies import ALL_DTYPES, ERRORS, any_tensors, laid_out, same_bits, tensor_error, tensors, values, zero_bits
from test_compress import EXACT, LOSSY, METHODS, TAME, assume_factors_fit

DAMAGED = (ValueError, RuntimeError)
# Frames lie on the CPU, and are checked there; what they hold comes from any device and goes there.
each_device = pytest.mark.each_device


def check_round_trip(ops, c):
    frame = ops.pack(c)
    assert frame.dtype == torch.uint8 and frame.dim() == 1 and frame.is_contiguous()
    assert frame.device == torch.device('cpu')
    assert frame.untyped_storage().nbytes() == frame.numel()
    d = ops.unpack(frame)
    assert d.method() == c.method() and d.shape() == c.shape()
    assert d.original_nbytes() == c.original_nbytes() and d.nbytes() == c.nbytes()
    assert d.relative_error() == c.relative_error()
    assert d.worst_row_error() == c.worst_row_error()
    assert d.max_element_error() == c.max_element_error()
    assert same_bits(ops.decompress(c), ops.decompress(d))
    parts = zip(c.parts(), d.parts(), strict=True)
    assert all(same_bits(a, b) for a, b in parts)
    assert torch.equal(ops.pack(d), frame), 'a frame packs to other bytes the second time'
    return frame


@each_device
@pytest.mark.parametrize('method', LOSSY)
@given(data=st.data())
def test_lossy_methods_go_through(ops, method, data):
    x = data.draw(tensors(kinds=TAME))
    if method == 'svd':
        assume_factors_fit(x)
    check_round_trip(ops, ops.compress(x, method))


@each_device
@pytest.mark.parametrize('method', EXACT)
@given(data=st.data())
def test_exact_methods_go_through(ops, method, data):
    x = data.draw(any_tensors())
    d = ops.unpack(check_round_trip(ops, ops.compress(x, method)))
    assert same_bits(ops.decompress(d), x)


@each_device
@given(tensors(nonfinite=True), st.sampled_from(tuple(ERRORS)), st.sampled_from((0.0, 1e-4, 0.05)))
def test_auto_goes_through(ops, x, bound, max_error):
    check_round_trip(ops, ops.compress(x, max_error=max_error, bound=bound))


@each_device
@pytest.mark.parametrize('options', [
    {'method': 'int8', 'symmetric': False, 'group_size': -1},
    {'method': 'int8', 'symmetric': True, 'group_size': 0},
    {'method': 'int4', 'symmetric': False, 'group_size': 7},
    {'method': 'svd', 'adaptive_rank': False, 'compression_ratio': 0.3},
    {'method': 'sparse', 'sparsity_threshold': 0.0},
    {'method': 'sparse', 'sparsity_threshold': 1.0},
    {'method': 'bounded', 'bound': 'row', 'max_error': 0.05},
    {'method': 'bounded', 'bound': 'element', 'max_error': 1e-6},
], ids=lambda o: '-'.join(str(v) for v in o.values()))
def test_options_go_through(ops, options):
    check_round_trip(ops, ops.compress(values('outliers', (9, 129), torch.float32), **options))


SMALL = [('none', torch.float32), ('int8', torch.float32), ('int4', torch.bfloat16),
         ('fp16', torch.float64), ('bounded', torch.float32), ('svd', torch.float32),
         ('sparse', torch.float16), ('lossless', torch.bfloat16), ('lossless', torch.bool)]
small_frames = pytest.mark.parametrize(('method', 'dtype'), SMALL,
                                       ids=[f'{m}-{d}'.replace('torch.', '') for m, d in SMALL])


def small_frame(ops, method, dtype):
    x = values('integers', (3, 5), torch.float32).to(dtype)
    return ops.pack(ops.compress(x, method))


@small_frames
def test_every_single_flipped_bit_is_refused(ops, method, dtype):
    frame = small_frame(ops, method, dtype)
    for position in range(frame.numel()):
        for bit in range(8):
            damaged = frame.clone()
            damaged[position] ^= 1 << bit
            with pytest.raises(DAMAGED, match='qvlmem::unpack: '):
                ops.unpack(damaged)


@small_frames
def test_every_truncation_is_refused(ops, method, dtype):
    frame = small_frame(ops, method, dtype)
    for length in range(frame.numel()):
        for cut in (frame[:length], frame[:length].clone()):
            with pytest.raises(DAMAGED, match=r'qvlmem::unpack: (?s:.*)(short|cut|truncat|end)'):
                ops.unpack(cut)


@small_frames
def test_bytes_after_the_end_are_refused(ops, method, dtype):
    frame = small_frame(ops, method, dtype)
    for extra in (torch.zeros(1), torch.zeros(64), torch.full((3,), 255), frame):
        with pytest.raises(DAMAGED, match=r'qvlmem::unpack: (?s:.*)(after|trailing|longer|beyond)'):
            ops.unpack(torch.cat([frame, extra.to(torch.uint8)]))


@small_frames
def test_swapped_and_repeated_blocks_are_refused(ops, method, dtype):
    frame = small_frame(ops, method, dtype)
    for size in (8, 16, 32):
        for start in range(0, frame.numel() - 2 * size, size):
            damaged = frame.clone()
            damaged[start:start + size] = frame[start + size:start + 2 * size]
            damaged[start + size:start + 2 * size] = frame[start:start + size]
            if not torch.equal(damaged, frame):
                with pytest.raises(DAMAGED, match='qvlmem::unpack: '):
                    ops.unpack(damaged)


def test_errors_say_what_is_wrong(ops):
    frame = small_frame(ops, 'int8', torch.float32)
    bad_magic = frame.clone()
    bad_magic[0] ^= 255
    with pytest.raises(DAMAGED, match=r'(?i)qvlmem::unpack: (?s:.*)magic'):
        ops.unpack(bad_magic)
    with pytest.raises(DAMAGED, match=r'(?i)qvlmem::unpack: (?s:.*)magic'):
        ops.unpack(torch.zeros(4096, dtype=torch.uint8))
    flipped = frame.clone()
    flipped[-1] ^= 1
    with pytest.raises(DAMAGED, match=r'(?i)qvlmem::unpack: (?s:.*)(checksum|damaged)'):
        ops.unpack(flipped)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(ops, data):
    frame = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(
        0, dtype=torch.uint8)
    with pytest.raises(DAMAGED, match='qvlmem::unpack: '):
        ops.unpack(frame)


@pytest.mark.parametrize(('frame', 'error'), [
    (torch.zeros(100), TypeError),
    (torch.zeros(100, dtype=torch.int8), TypeError),
    (torch.zeros(10, 10, dtype=torch.uint8), ValueError),
    (torch.zeros((), dtype=torch.uint8), ValueError),
])
def test_what_is_no_flat_byte_tensor_is_refused(ops, frame, error):
    with pytest.raises(error, match=r'qvlmem::unpack: expected frame (?s:.*)got '):
        ops.unpack(frame)


@each_device
@pytest.mark.parametrize('method', METHODS)
def test_a_frame_may_lie_anywhere(ops, method):
    """Unaligned, strided, read-only, reused afterwards: a frame is bytes, and unpack copies them."""
    c = ops.compress(values('normal', (5, 33), torch.float32), method)
    want = ops.decompress(c)
    frame = ops.pack(c)
    for layout in ('offset', 'strided', 'narrowed'):
        assert same_bits(ops.decompress(ops.unpack(laid_out(frame, layout))), want)
    reused = frame.clone()
    d = ops.unpack(reused)
    reused.fill_(255)
    assert same_bits(ops.decompress(d), want)
    for d in (ops.unpack(frame, torch.device('cpu')), ops.unpack(frame, device='cpu')):
        assert {part.device.type for part in d.parts()} <= {'cpu'}
        decoded = torch.ops.qvlmem.decompress(d)
        assert decoded.device.type == 'cpu'
        assert same_bits(decoded, want) if method != 'svd' else tensor_error(want, decoded) < 1e-6


@pytest.mark.parametrize('dtype', ALL_DTYPES, ids=str)
def test_a_frame_costs_little(ops, dtype):
    x = zero_bits((1000,), dtype)
    assert ops.pack(ops.compress(x, 'none')).numel() <= x.nbytes + 512


def many_frames(ops):
    """Of every method, a large one among them, in one buffer with odd places between."""
    frames = [small_frame(ops, method, dtype) for method, dtype in SMALL * 3]
    frames.insert(5, ops.pack(ops.compress(torch.randn(3 << 20).bfloat16(), 'lossless')))
    for offset in (0, 1, 7):
        frames.append(torch.cat([torch.zeros(offset, dtype=torch.uint8), frames[1]])[offset:])
    return frames


@pytest.mark.parametrize('count', [1, 2])
def test_decompress_frames_is_unpack_and_decompress_of_each(ops, threads, count):
    threads(count)
    frames = many_frames(ops)
    decoded = ops.decompress_frames(frames)
    assert len(decoded) == len(frames)
    for frame, x in zip(frames, decoded):
        assert same_bits(x, ops.decompress(ops.unpack(frame)))
        assert x.untyped_storage().nbytes() == x.nbytes
    reused = [frame.fill_(255) for frame in frames]
    assert len(reused) == len(decoded) and same_bits(decoded[0], values('integers', (3, 5), torch.float32))
    assert ops.decompress_frames([]) == []


@pytest.mark.parametrize('count', [1, 2])
def test_decompress_frames_refuses_what_unpack_refuses(ops, threads, count):
    threads(count)
    for place in (0, 5, 20, -1):
        frames = many_frames(ops)
        frames[place] = frames[place].clone()
        frames[place][-1] ^= 1
        with pytest.raises(ValueError, match='qvlmem::decompress_frames: refused a frame of .* checksum'):
            ops.decompress_frames(frames)
    with pytest.raises(TypeError, match='qvlmem::decompress_frames: expected frame (?s:.*)got '):
        ops.decompress_frames([frames[0], torch.zeros(100)])


def test_decompress_frames_in_a_script(ops):
    @torch.jit.script
    def sums(frames: list[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros(())
        for x in torch.ops.qvlmem.decompress_frames(frames):
            total += x.float().sum()
        return total

    x = values('normal', (9, 33), torch.float32)
    assert torch.equal(sums([ops.pack(ops.compress(x, 'none'))] * 2), x.sum() + x.sum())
