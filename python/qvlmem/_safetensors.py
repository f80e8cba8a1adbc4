# SPDX-License-Identifier: Apache-2.0
"""safetensors files, read and written a tensor at a time.

The format: the bytes of the header (uint64, little-endian), the header (JSON: name to dtype, shape and the
range of bytes behind the header; `__metadata__` to texts), the tensors' bytes without gaps.
"""

import json
import math
import struct

import torch

from qvlmem._bytes import byte_view, read_at
from qvlmem._source import Item, Source

LENGTH = struct.Struct('<Q')
MAX_HEADER = 100_000_000  # the format's own limit
METADATA = '__metadata__'
DTYPES = {
    'BOOL': 'bool', 'U8': 'uint8', 'I8': 'int8', 'U16': 'uint16', 'I16': 'int16', 'U32': 'uint32',
    'I32': 'int32', 'U64': 'uint64', 'I64': 'int64', 'F16': 'float16', 'BF16': 'bfloat16', 'F32': 'float32',
    'F64': 'float64', 'C64': 'complex64', 'F8_E4M3': 'float8_e4m3fn', 'F8_E5M2': 'float8_e5m2',
    'F8_E4M3FNUZ': 'float8_e4m3fnuz', 'F8_E5M2FNUZ': 'float8_e5m2fnuz', 'F8_E8M0': 'float8_e8m0fnu',
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def looks_like(head, size):
    """Whether a file of `size` bytes that begins with these 9 bytes may be one."""
    return len(head) == 9 and 2 <= LENGTH.unpack_from(head)[0] <= min(size - 8, MAX_HEADER) and head[8:] == b'{'


class SafetensorsFile(Source):
    """An open safetensors file, checked as far as its header tells."""

    kind = 'safetensors'

    def __init__(self, path, file, size):
        length = bytearray(LENGTH.size)
        read_at(file, 0, memoryview(length))
        text = bytearray(LENGTH.unpack(length)[0])
        try:
            read_at(file, LENGTH.size, memoryview(text))
            header = json.loads(text.decode(), object_pairs_hook=_unique)
            metadata = header.pop(METADATA, {})
            entries = [(name, *_parse_entry(name, entry)) for name, entry in header.items()]
            if not all(isinstance(value, str) for value in metadata.values()):
                raise ValueError(f'{METADATA} is not all text')
        except (ValueError, TypeError, KeyError, AttributeError, EOFError, RecursionError) as error:
            raise ValueError(f'{path} has a damaged header: {error}') from None
        begin = LENGTH.size + len(text)
        end = begin + _end_of(path, entries)
        if size != end:
            what = 'is cut short' if size < end else 'goes on after its end'
            raise ValueError(f'{path} {what}: {size} bytes of {end}')
        super().__init__(path, file, metadata, [item for _, item, _ in entries],
                         [(name, number) for number, (name, _, _) in enumerate(entries)])
        self._offsets = [begin + offset for _, _, offset in entries]

    def value(self, number):
        item = self.items[number]
        tensor = torch.empty(item.shape, dtype=getattr(torch, item.dtype))
        read_at(self._file, self._offsets[number], byte_view(tensor))
        return tensor


def write_safetensors(file, source, advance):
    """Writes all tensors of a Source, decompressed, into a binary file; calls advance() after each.

    Tied tensors are written once a name: the format cannot share. ValueError for a dtype that it lacks.
    """
    names = source.names if source.names is not None else [('tensor', 0)]
    for name, number in names:
        if name == METADATA or source.items[number].dtype not in NAMES:
            raise ValueError(f'{source.path}: tensor {name!r} cannot be stored as safetensors: '
                             f'{"of this name" if name == METADATA else source.items[number].dtype}')
    # Wide elements first, so that each tensor is aligned to its own.
    names = sorted(names, key=lambda pair: -_width(source.items[pair[1]]))
    header, end = {METADATA: source.metadata} if source.metadata else {}, 0
    for name, number in names:
        item = source.items[number]
        begin, end = end, end + math.prod(item.shape) * _width(item)
        header[name] = {'dtype': NAMES[item.dtype], 'shape': item.shape, 'data_offsets': [begin, end]}
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f'{source.path}: expected names and shapes of at most {MAX_HEADER} bytes, '
                         f'got {len(text)}')
    file.write(LENGTH.pack(len(text)) + text)
    for _, number in names:
        tensor = source.read(number, source.tensor)
        file.write(byte_view(tensor))
        advance()


def _width(item):
    return getattr(torch, item.dtype).itemsize


def _unique(pairs):
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError('it has a name twice')
    return entries


def _parse_entry(name, entry):
    """(Item, offset of the first byte behind the header)."""
    dtype, shape, (begin, end) = entry['dtype'], entry['shape'], entry['data_offsets']
    if dtype not in DTYPES or not hasattr(torch, DTYPES[dtype]):
        raise ValueError(f'tensor {name!r} is of dtype {dtype}, which is not supported')
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f'tensor {name!r} has sizes that are no numbers from 0')
    item = Item(DTYPES[dtype], tuple(shape), end - begin)
    if math.prod(n or 1 for n in shape) * _width(item) >= 1 << 63:
        raise ValueError(f'tensor {name!r} has sizes that overflow 63 bits')
    if math.prod(shape) * _width(item) != item.stored_bytes:
        raise ValueError(f'tensor {name!r} of shape {shape} has {item.stored_bytes} bytes')
    return item, begin


def _end_of(path, entries):
    """Where the last tensor ends; ValueError where they overlap or leave gaps."""
    end = 0
    for begin, count, name in sorted((offset, item.stored_bytes, name) for name, item, offset in entries):
        if begin != end:
            raise ValueError(f'{path} has a damaged header: tensor {name!r} begins at {begin}, expected {end}')
        end += count
    return end
