# SPDX-License-Identifier: Apache-2.0
"""Many frames in one file, with an index behind them (docs/format.md has the layout).

It is written from front to back, a frame at a time, and opened without reading the frames.
"""

import json
import os
import struct

import torch

from qvlmem._bytes import byte_view, read_at
from qvlmem._source import DAMAGE, Item, Source

VERSION = 1
MAGIC, END = b'QVLSTORE', b'QVLSTEND'
HEAD = struct.Struct('<8sH54x')  # magic, version
TAIL = struct.Struct('<Q8s')  # where the index begins, magic
CHECKSUM = struct.Struct('<Q')
FRAME_MAGIC = b'QVLM'
ALIGNMENT = 64
MAX_INDEX = 100 << 20  # bytes of JSON; safetensors has the same limit for its header
MAX_DIMS = 64
BATCH_BYTES = 8 << 20  # fits a cache that threads share
# By their numbers in frames.
DTYPES = ('float32', 'float16', 'bfloat16', 'float64', 'uint8', 'int8', 'int16', 'int32', 'int64', 'bool',
          'complex32', 'complex64', 'complex128', 'uint16', 'uint32', 'uint64', 'float8_e4m3fn',
          'float8_e5m2', 'float8_e4m3fnuz', 'float8_e5m2fnuz', 'float8_e8m0fnu', 'float4_e2m1fn_x2',
          'bcomplex32')


def aligned(count):
    return -(-count // ALIGNMENT) * ALIGNMENT


def head_of(frame):
    """(dtype's name, shape) of the original, and the checksum, of an intact frame (a flat uint8 tensor)."""
    head = byte_view(frame)
    return DTYPES[head[7]], struct.unpack_from(f'<{head[8]}q', head, 56), f'{CHECKSUM.unpack_from(head, 24)[0]:016x}'


class FrameFileWriter:
    """Writes frames into a binary file that is open at its beginning, one after the other."""

    def __init__(self, file, metadata=None):
        self._file = file
        self._metadata = metadata or {}
        self._frames = []
        self._end = 0
        self._write(HEAD.pack(MAGIC, VERSION))

    def add(self, compressed, *, as_tensor):
        """Writes a CompressedTensor; as_tensor: it comes back decompressed. Returns the frame's number."""
        frame = torch.ops.qvlmem.pack(compressed)
        dtype, shape, checksum = head_of(frame)
        self._write(byte_view(frame))
        self._frames.append({'bytes': frame.numel(), 'as': 'tensor' if as_tensor else 'compressed',
                             'dtype': dtype, 'shape': shape, 'checksum': checksum})
        return len(self._frames) - 1

    def finish(self, names):
        """Writes the index. names: [(name, frame number)], or None where the one frame is the value."""
        index = {'metadata': self._metadata, 'frames': self._frames, 'names': names}
        text = json.dumps(index, separators=(',', ':')).encode()
        if len(text) > MAX_INDEX:
            raise ValueError(f'expected names and shapes of at most {MAX_INDEX} bytes, got {len(text)}')
        values = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        frame = torch.ops.qvlmem.pack(torch.ops.qvlmem.compress(values, 'none'))
        begin = aligned(self._end)
        self._write(byte_view(frame))
        self._file.write(TAIL.pack(begin, END))

    def _write(self, data):
        begin = aligned(self._end)
        self._file.write(bytes(begin - self._end))
        self._file.write(data)
        self._end = begin + len(data)


class FrameFile(Source):
    """A file that FrameFileWriter wrote."""

    kind = 'qvlmem'

    def __init__(self, path, file, size):
        try:
            begin, index = _read_index(file, size)
            super().__init__(path, file, *_parse_index(index))
            self._offsets = _offsets(self.items, begin)
        except (ValueError, TypeError, EOFError, RecursionError) as error:
            raise ValueError(f'{path} is damaged: {error}') from None
        self._buffer = None

    def value(self, number):
        return self._decode([number])[0]

    def values(self):
        batches = list(self._batches())
        for batch, following in zip(batches, [*batches[1:], None]):
            if following:
                self._announce(following)
            try:
                decoded = self._decode(batch)
            except DAMAGE:
                for number in batch:
                    self.read(number)  # raises for the one that is damaged
                raise
            yield from decoded

    def compressed(self, number):
        frame, = self._frames([number])
        c = torch.ops.qvlmem.unpack(frame)
        self._check(number, frame)
        return c

    def _batches(self):
        """Lists of consecutive numbers: one large frame, or several smaller ones, for one read each."""
        batch, count = [], 0
        for number, item in enumerate(self.items):
            if batch and count + item.stored_bytes > BATCH_BYTES:
                yield batch
                batch, count = [], 0
            batch.append(number)
            count += item.stored_bytes
        if batch:
            yield batch

    def _range(self, numbers):
        """(offset, bytes) of consecutive frames in the file, with the zeros that follow each."""
        begin = self._offsets[numbers[0]]
        return begin, aligned(self._offsets[numbers[-1]] + self.items[numbers[-1]].stored_bytes) - begin

    def _announce(self, numbers):
        """Has the kernel read ahead while others are decoded."""
        os.posix_fadvise(self._file.fileno(), *self._range(numbers), os.POSIX_FADV_WILLNEED)

    def _decode(self, numbers):
        frames = self._frames(numbers)
        plain = [number for number in numbers if not self.items[number].is_compressed]
        tensors = iter(torch.ops.qvlmem.decompress_frames([frames[n - numbers[0]] for n in plain]))
        values = [torch.ops.qvlmem.unpack(frame) if self.items[number].is_compressed else next(tensors)
                  for number, frame in zip(numbers, frames)]
        for number, frame in zip(numbers, frames):
            self._check(number, frame)
        return values

    def _frames(self, numbers):
        """Their bytes, not judged yet, in a buffer that the next ones take."""
        if self._buffer is None:
            largest = max(self._range(batch)[1] for batch in self._batches())
            self._buffer = torch.empty(largest, dtype=torch.uint8)
        begin, count = self._range(numbers)
        view = byte_view(self._buffer)[:count]
        read_at(self._file, begin, view)
        frames = []
        for number in numbers:
            start = self._offsets[number] - begin
            end = start + self.items[number].stored_bytes
            if any(view[end:aligned(end)]):
                raise ValueError('what follows its frame should be 0')
            frames.append(self._buffer[start:end])
        return frames

    def _check(self, number, frame):
        """Whether an intact frame is the one that the index means."""
        item = self.items[number]
        if head_of(frame) != (item.dtype, item.shape, item.checksum):
            raise ValueError('its frame is another one than the index says')


class SingleFrame(Source):
    """A file with the bytes of pack and nothing else."""

    kind = 'frame'

    def __init__(self, path, file, size):
        self._frame = torch.empty(size, dtype=torch.uint8)
        read_at(file, 0, byte_view(self._frame))
        super().__init__(path, file, {}, [Item('uint8', (), size, is_compressed=True)], None)
        self._compressed = self.read(0, lambda _: torch.ops.qvlmem.unpack(self._frame))
        dtype, shape, checksum = head_of(self._frame)
        self.items = [Item(dtype, shape, size, is_compressed=True, checksum=checksum)]

    def compressed(self, number):
        return self._compressed

    value = compressed


def _read_index(file, size):
    """(where it begins, its JSON), intact as the checksum says."""
    head, tail = bytearray(HEAD.size), bytearray(TAIL.size)
    read_at(file, 0, memoryview(head))
    version = HEAD.unpack(head)[1]
    if version > VERSION:
        raise ValueError(f'it is of version {version}, this library reads up to {VERSION}')
    if head != HEAD.pack(MAGIC, VERSION):
        raise ValueError('its head is not as it was written')
    read_at(file, size - TAIL.size, memoryview(tail))
    begin, end = TAIL.unpack(tail)
    if end != END:
        raise ValueError('it is cut short, or goes on after its end')
    count = size - TAIL.size - begin
    if not 0 < count <= MAX_INDEX + 4096:
        raise ValueError(f'its index cannot begin at {begin}')
    frame = torch.empty(count, dtype=torch.uint8)
    read_at(file, begin, byte_view(frame))
    try:
        index = torch.ops.qvlmem.unpack(frame)
    except (ValueError, TypeError) as error:
        raise ValueError(f'its index: {error}') from None
    if index.method() != 'none':  # which holds no more than its bytes
        raise ValueError(f"its index is stored by method '{index.method()}', expected 'none'")
    return begin, bytes(byte_view(index.parts()[0]))


def _parse_index(text):
    """(metadata, items, names), as Source has them; ValueError or TypeError for anything unexpected."""
    index = json.loads(text)
    metadata, frames, names = _fields('index', index, metadata=dict, frames=list, names=(list, type(None)))
    if not all(isinstance(value, str) for value in metadata.values()):
        raise TypeError('its metadata is not all text')
    items = [_parse_frame(frame) for frame in frames]
    if names is None:
        if len(items) != 1:
            raise ValueError(f'its index has {len(items)} frames for one value')
        return metadata, items, None
    pairs = [_parse_name(entry, len(items)) for entry in names]
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError('its index has a name twice')
    if {number for _, number in pairs} != set(range(len(items))):
        raise ValueError('its index has a frame without a name')
    return metadata, items, pairs


def _parse_frame(entry):
    count, kind, dtype, shape, checksum = _fields(
        'frame', entry, **{'bytes': int, 'as': str, 'dtype': str, 'shape': list, 'checksum': str})
    if not (0 < count < 1 << 63 and kind in ('tensor', 'compressed') and dtype in DTYPES
            and len(shape) <= MAX_DIMS and all(type(n) is int and n >= 0 for n in shape)):
        raise ValueError(f'its index has a frame {str(entry)[:200]}')
    return Item(dtype, tuple(shape), count, is_compressed=kind == 'compressed', checksum=checksum)


def _parse_name(entry, count):
    name, number = entry
    if type(name) is not str or type(number) is not int or not 0 <= number < count:
        raise ValueError(f'its index has a name {str(entry)[:200]}')
    return name, number


def _fields(what, entry, **types):
    """The values of an object that has these fields and no others."""
    if type(entry) is not dict or entry.keys() != types.keys():
        raise ValueError(f'its index has the {what} {str(entry)[:200]}')
    for name, expected in types.items():
        if type(entry[name]) not in (expected if isinstance(expected, tuple) else (expected,)):
            raise TypeError(f'its index has {name} {str(entry[name])[:200]}')
    return [entry[name] for name in types]


def _offsets(items, index_begin):
    """Where each frame begins: they follow one another, and the index follows them."""
    offsets, end = [], HEAD.size
    for item in items:
        offsets.append(aligned(end))
        end = offsets[-1] + item.stored_bytes
    if aligned(end) != index_begin:
        raise ValueError(f'its frames end at {end}, and its index begins at {index_begin}')
    return offsets
