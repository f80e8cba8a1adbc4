# SPDX-License-Identifier: Apache-2.0
"""tools/frame, and frames that were edited and resealed with it: what stands behind the checksum.

The layout is written down here once more, independent of the library (kernels/frame/frame.h).
"""

import copy
import dataclasses
import json
import math
import pathlib
import random
import re
import struct
import subprocess

import pytest
import strategies
import torch

TOOL = pathlib.Path(__file__).resolve().parents[2] / 'tools' / 'frame'
ITEM_BYTES = (4, 2, 2, 8, 1, 1, 2, 4, 8, 1, 4, 8, 16, 2, 4, 8, 1, 1, 1, 1)  # by dtype number
SMALL = 16 << 20  # what is decompressed here, in bytes


@dataclasses.dataclass
class Part:
    dtype: int
    shape: list
    data: bytes

    def reshaped(self, shape, dtype=None):
        """Of another shape or dtype, its bytes cut or repeated to fit."""
        dtype = self.dtype if dtype is None else dtype
        size = math.prod(shape) * ITEM_BYTES[dtype]
        source = self.data or b'\1'
        return Part(dtype, shape, (source * (size // len(source) + 1))[:size])


@dataclasses.dataclass
class Frame:
    codec: int
    dtype: int
    errors: tuple
    shape: list
    params: list
    parts: list

    @staticmethod
    def read(data):
        codec, dtype, dims, params, parts = struct.unpack_from('<5B', data, 6)
        errors = struct.unpack_from('<3d', data, 32)
        shape = list(struct.unpack_from(f'<{dims}q', data, 56))
        values = list(struct.unpack_from(f'<{params}q', data, 56 + 8 * dims))
        at, held = 56 + 8 * (dims + params), []
        for _ in range(parts):
            number, part_dims = struct.unpack_from('<2B', data, at)
            offset, *part_shape = struct.unpack_from(f'<{part_dims + 1}q', data, at + 8)
            size = math.prod(part_shape) * ITEM_BYTES[number]
            held.append(Part(number, part_shape, data[offset:offset + size]))
            at += 16 + 8 * part_dims
        return Frame(codec, dtype, errors, shape, values, held)

    def write(self):
        """The frame's bytes, with a checksum of 0."""
        entries, at = b'', 56 + 8 * (len(self.shape) + len(self.params))
        end = header = -(-(at + sum(16 + 8 * len(p.shape) for p in self.parts)) // 64) * 64
        body = b''
        for part in self.parts:
            offset = -(-end // 64) * 64
            body += bytes(offset - end) + part.data
            end = offset + len(part.data)
            entries += struct.pack(f'<2B6xq{len(part.shape)}q', part.dtype, len(part.shape), offset,
                                   *part.shape)
        fixed = b'QVLM' + struct.pack('<H5Bx', 1, self.codec, self.dtype, len(self.shape),
                                      len(self.params), len(self.parts))
        fixed += struct.pack('<IqQ3d', header, end, 0, *self.errors)
        fixed += struct.pack(f'<{len(self.shape) + len(self.params)}q', *self.shape, *self.params)
        return (fixed + entries).ljust(header, b'\0') + body


def tool(*arguments):
    return subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True, check=False)


def as_tensor(data):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def as_bytes(frame):
    return bytes(frame.tolist())


def methods(ops):
    """The codecs of this library, as its own error message lists them."""
    with pytest.raises(ValueError, match='expected method to be one of') as refusal:
        ops.compress(torch.zeros(1), 'no such method')
    return re.search('one of auto, (.*), got', str(refusal.value)).group(1).split(', ')


def example(dtype=torch.float32):
    return strategies.values('sparse', (5, 72), dtype)


@pytest.fixture
def sealed(tmp_path):
    """A function: frames to their bytes with the checksums that tools/frame gives them."""
    def seal(frames):
        paths = [tmp_path / f'{i}.frame' for i in range(len(frames))]
        for path, frame in zip(paths, frames, strict=True):
            path.write_bytes(frame.write())
        result = tool('reseal', *paths)
        assert result.returncode == 0, result.stderr
        return [path.read_bytes() for path in paths]
    return seal


@pytest.fixture
def frame_file(ops, tmp_path):
    path = tmp_path / 'x.frame'
    path.write_bytes(as_bytes(ops.pack(ops.compress(example(), 'int8'))))
    return path


def test_show_tells_what_the_library_tells(ops, tmp_path):
    for method in methods(ops):
        c = ops.compress(example(), method)
        frame = ops.pack(c)
        path = tmp_path / 'a "name" with \u00fc.frame'
        path.write_bytes(as_bytes(frame))
        result = tool('show', path, '--json')
        assert result.returncode == 0, result.stderr
        shown = json.loads(result.stdout)
        assert shown['file'] == str(path) and shown['ok'] and shown['bytes'] == frame.numel()
        assert (shown['method'], shown['dtype'], shown['shape']) == (method, 'float32', [5, 72])
        assert shown['original_bytes'] == c.original_nbytes()
        assert shown['relative_error'] == c.relative_error()
        assert shown['checksum'] == shown['expected_checksum']
        for entry, part in zip(shown['parts'], c.parts(), strict=True):
            assert entry['dtype'] == str(part.dtype).removeprefix('torch.')
            assert entry['shape'] == list(part.shape) and entry['bytes'] == part.nbytes
        text = tool('show', path)
        assert text.returncode == 0 and method in text.stdout and '[5, 72]' in text.stdout


def test_show_says_what_is_wrong(frame_file):
    good = frame_file.read_bytes()

    def shown(data):
        frame_file.write_bytes(data)
        assert tool('show', frame_file).returncode == 1
        result = tool('show', frame_file, '--json')
        assert result.returncode == 1
        return json.loads(result.stdout)

    damaged = shown(good[:192] + bytes([good[192] ^ 1]) + good[193:])
    assert 'checksum' in damaged['status'] and damaged['method'] == 'int8'
    assert damaged['shape'] == [5, 72] and damaged['checksum'] != damaged['expected_checksum']
    assert 'cut short' in shown(good[:-1])['status']
    assert 'cut short' in shown(good[:40])['status']
    assert 'cut short' in shown(b'')['status']
    assert 'after its end' in shown(good + b'\0')['status']
    assert 'not a frame' in shown(b'PK' + good[2:])['status']
    newer = shown(good[:4] + b'\2' + good[5:])
    assert 'newer' in newer['status'] and newer['version'] == 2


def test_reseal_gives_an_edited_frame_its_checksum(ops, frame_file, tmp_path):
    good = frame_file.read_bytes()
    edited = bytearray(good)
    edited[192] ^= 1  # in the first part
    frame_file.write_bytes(edited)
    with pytest.raises(ValueError, match='checksum'):
        ops.unpack(as_tensor(edited))
    out = tmp_path / 'out.frame'
    assert tool('reseal', frame_file, '-o', out).returncode == 0
    assert frame_file.read_bytes() == edited
    resealed = out.read_bytes()
    assert [i for i in range(len(good)) if edited[i] != resealed[i]] == list(range(24, 32))
    ops.unpack(as_tensor(resealed))
    # One that was not edited has its checksum already.
    frame_file.write_bytes(good)
    assert tool('reseal', frame_file).returncode == 0
    assert frame_file.read_bytes() == good


def test_wrong_usage_and_missing_files(frame_file, tmp_path):
    for arguments in ((), ('show',), ('open', 'x'), ('show', 'a', 'b'), ('show', '--yaml', 'a'),
                      ('reseal', 'a', '-o'), ('reseal', 'a', 'b', '-o', 'c')):
        result = tool(*arguments)
        assert result.returncode == 2 and 'usage:' in result.stderr, arguments
    assert tool('--help').returncode == 0
    for arguments in (('show', tmp_path / 'missing'), ('show', tmp_path)):
        result = tool(*arguments)
        assert result.returncode == 1 and 'frame: error:' in result.stderr, arguments
    text = tmp_path / 'text'
    text.write_text('hello, world')
    result = tool('reseal', text)
    assert result.returncode == 1 and 'not a frame' in result.stderr
    assert text.read_text() == 'hello, world'


def test_the_layout_is_the_one_written_down(ops, sealed):
    for method in methods(ops):
        frame = as_bytes(ops.pack(ops.compress(example(torch.float16), method)))
        assert sealed([Frame.read(frame)]) == [frame], method


def attempt(ops, data):
    """Unpacks resealed bytes: the error, or None where what came out is consistent.

    unpack judges the params, the shapes and the dtypes; what an encoded part holds may be found out only
    while it is decoded.
    """
    frame = as_tensor(data)
    header = Frame.read(data)
    try:
        c = ops.unpack(frame)
        assert c.shape() == header.shape
        y = ops.decompress(c) if c.original_nbytes() <= SMALL else None
    except (ValueError, TypeError) as error:
        assert str(error).startswith('qvlmem::')
        return str(error)
    if y is not None:
        assert list(y.shape) == header.shape and y.is_contiguous()
        assert y.nbytes == c.original_nbytes()
    assert torch.equal(ops.pack(c), frame)
    return None


def header_edits(frame):
    """Frames whose parts have the sizes that they claim, but not those that the codec makes."""
    def changed(**changes):
        return dataclasses.replace(copy.deepcopy(frame), **changes)

    for i, value in enumerate(frame.params):
        for new in (-2**63, -2, -1, 0, 1, 2, 63, 65, value - 1, value + 1, 2**31, 2**62, 2**63 - 1):
            if -2**63 <= new < 2**63:
                yield changed(params=[*frame.params[:i], new, *frame.params[i + 1:]])
    yield changed(params=frame.params[:-1])
    yield changed(params=[*frame.params, 0])
    for number in range(len(ITEM_BYTES)):
        yield changed(dtype=number)
    for number in (*range(10), 127, 128, 255):
        yield changed(codec=number)
    sizes = frame.shape
    for shape in ([], [0], [1], [math.prod(sizes)], sizes[::-1], [*sizes, 1], [1, *sizes],
                  [sizes[0] + 1, *sizes[1:]], [sizes[0] - 1, *sizes[1:]], [*sizes[:-1], sizes[-1] + 1],
                  [*sizes[:-1], sizes[-1] - 1], [2**40], [2**20, 2**20], [2**30, 1, 2**29],
                  [0, 2**50], [0, 2**40, 2**40], [2] * 40, [1] * 64):
        yield changed(shape=shape)
    for i, part in enumerate(frame.parts):
        others = [(part.shape, number) for number in range(len(ITEM_BYTES)) if number != part.dtype]
        others += [(shape, None) for shape in (
            [], [0], [1], [0, 7], [0, 2**40, 2**40], part.shape[::-1], [*part.shape, 1], [1, *part.shape],
            [math.prod(part.shape)], [math.prod(part.shape) + 1], [math.prod(part.shape) // 2],
            [n + 1 for n in part.shape], [max(n - 1, 0) for n in part.shape])]
        for shape, number in others:
            parts = list(frame.parts)
            parts[i] = part.reshaped(shape, number)
            yield changed(parts=parts)
        yield changed(parts=frame.parts[:i] + frame.parts[i + 1:])
        yield changed(parts=[*frame.parts, part][:8])
    yield changed(parts=frame.parts[::-1])
    yield changed(parts=[])


def content_edits(frame, count=40):
    """Frames whose parts hold other bytes."""
    draw = random.Random(1)
    for i, part in enumerate(frame.parts):
        if not part.data:
            continue
        fillings = [bytes(len(part.data)), b'\xff' * len(part.data), b'\x7f' * len(part.data),
                    draw.randbytes(len(part.data))]
        for _ in range(count):
            data = bytearray(part.data)
            for _ in range(draw.choice((1, 1, 2, 8))):
                # The first bytes of an encoded part are its own header: half of the edits go there.
                reach = min(len(data), 32) if draw.random() < 0.5 else len(data)
                data[draw.randrange(reach)] = draw.choice((0, 1, 0x7f, 0x80, 0xff, draw.randrange(256)))
            fillings.append(bytes(data))
        for data in fillings:
            parts = list(frame.parts)
            parts[i] = Part(part.dtype, part.shape, data)
            yield dataclasses.replace(frame, parts=parts)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_edited_headers_are_refused_or_mean_something(ops, sealed, dtype):
    for method in methods(ops):
        original = as_bytes(ops.pack(ops.compress(example(dtype), method)))
        frame = Frame.read(original)
        refused = 0
        edits = list(header_edits(frame))
        for data in sealed(edits):
            refused += attempt(ops, data) is not None
        assert refused > len(edits) // 2, method


def test_edited_contents_are_refused_or_decoded(ops, sealed):
    for method in methods(ops):
        frame = Frame.read(as_bytes(ops.pack(ops.compress(example(), method))))
        for data in sealed(list(content_edits(frame))):
            attempt(ops, data)


def test_the_reason_is_named(ops, sealed):
    frame = Frame.read(as_bytes(ops.pack(ops.compress(example(), 'int8'))))
    cases = [
        (dataclasses.replace(frame, codec=200), 'codec number 200'),
        (dataclasses.replace(frame, dtype=7), 'int8 does not take int32'),
        (dataclasses.replace(frame, params=[]), 'expected 1 params and 3 parts, got 0 and 3'),
        (dataclasses.replace(frame, params=[-2]), 'group_size'),
        (dataclasses.replace(frame, shape=[5, 73]), r'shape \[5, 73\]'),
    ]
    for edited, reason in cases:
        with pytest.raises((ValueError, TypeError), match=reason):
            ops.unpack(as_tensor(sealed([edited])[0]))


def test_resealing_does_not_mend_a_header(ops, frame_file):
    data = bytearray(frame_file.read_bytes())
    data[12:16] = struct.pack('<I', 128)  # where the parts begin
    frame_file.write_bytes(data)
    result = tool('reseal', frame_file)
    assert result.returncode == 0 and 'contradict' in result.stderr
    with pytest.raises(ValueError, match='contradict'):
        ops.unpack(as_tensor(frame_file.read_bytes()))
