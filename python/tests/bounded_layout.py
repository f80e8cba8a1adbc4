# SPDX-License-Identifier: Apache-2.0
"""A decoder of the codec `bounded`, written from its layout and sharing no code with the library."""

import math

import torch

from strategies import as_rows

UNIT_VALUES, FUSED_COLUMNS = 8192, 32768


def units(rows, columns, factor):
    """Flat ranges of the units of a matrix, `factor` times as large as in the packed form."""
    if columns > FUSED_COLUMNS:
        step = factor * UNIT_VALUES
        return [(r * columns + c, r * columns + min(c + step, columns))
                for r in range(rows) for c in range(0, columns, step)]
    together = factor * max(1, UNIT_VALUES // max(1, columns)) * columns
    return [(i, min(i + together, rows * columns)) for i in range(0, rows * columns, together or 1)]


def unpack_block(header, payload):
    """The 32 integers of one block, and the bytes of its payload."""
    width, kind = header & 63, header >> 6
    assert width <= 32
    base = [0, 1 - 2**width, -(2**width >> 1), 0][kind]
    start = 0
    if kind == 3:
        base, start = int.from_bytes(payload[:4], 'little', signed=True), 4
    planes = [int.from_bytes(payload[start + 4 * b:start + 4 * b + 4], 'little') for b in range(width)]
    integers = [base + sum((plane >> i & 1) << b for b, plane in enumerate(planes)) for i in range(32)]
    return integers, start + 4 * width


def unpack_blocks(data, count):
    """The integers of the first `count` blocks, and the bytes after them."""
    headers, payload, integers = data[:count], data[count:], []
    for header in headers:
        block, used = unpack_block(header, payload)
        integers += block
        payload = payload[used:]
    return integers, payload


def unpack_symbols(data, count):
    """The bytes that canonical Huffman codes in eight streams stand for (kernels/coding/huffman.h)."""
    first, last = data[:2]
    nibbles = data[2:2 + (last - first) // 2 + 1]
    lengths = {first + i: nibbles[i // 2] >> 4 * (i % 2) & 15 for i in range(last - first + 1)}
    codes, code = {}, 0
    for length in range(1, 12):
        for value in (v for v, n in lengths.items() if n == length):
            codes[length, code] = value
            code += 1
        code <<= 1
    assert code == 1 << 12, 'a complete code'
    at = 2 + len(nibbles) + 16
    sizes = [int.from_bytes(data[at - 16 + 2 * s:at - 14 + 2 * s], 'little') for s in range(8)]
    each, symbols = math.ceil(count / 8), []
    for stream, size in enumerate(sizes):
        bits = int.from_bytes(data[at:at + size], 'little')
        at += size
        for _ in range(min(each, max(0, count - stream * each))):
            length, code = 1, bits & 1
            while (length, code) not in codes:
                length, code = length + 1, code << 1 | bits >> length & 1
            symbols.append(codes[length, code])
            bits >>= length
    assert at == len(data), 'bytes after the last stream'
    return symbols


def unpack_unit(unit, count):
    """The integers of a unit of `count` values."""
    blocks = math.ceil(count / 32)
    if unit[0] == 0:
        integers, rest = unpack_blocks(unit[1:], blocks)
        assert not rest, 'bytes after the last block'
        return integers[:count]
    assert unit[0] == 1, 'a mode that is known'
    low, escapes = unit[1], int.from_bytes(unit[2:6], 'little')
    lowest, rest = unpack_blocks(bytes([low] * blocks) + unit[6:], blocks)
    escaped, rest = unpack_blocks(rest, math.ceil(escapes / 32))
    symbols = unpack_symbols(rest, count)
    assert symbols.count(0) == escapes
    escaped = iter(escaped)
    return [next(escaped) if s == 0 else ((s - 1 >> 1) ^ -(s - 1 & 1)) << low | below
            for s, below in zip(symbols, lowest[:count], strict=True)]


def form(ops, c):
    """The param: 1 where each row has a step, plus 2 where the units are those of the coded form."""
    at = 56 + 8 * len(c.shape())
    return int.from_bytes(bytes(ops.pack(c)[at:at + 8].tolist()), 'little')


def decode(ops, c, x):
    """What the layout in kernels/bounded/bounded.h says that the parts of x compressed stand for."""
    step, sizes, packed = (part.cpu() for part in c.parts())
    per_row, coded = form(ops, c) & 1, form(ops, c) >> 1
    matrix = x.reshape(0, 0) if not x.numel() else as_rows(x) if per_row else x.reshape(1, -1)
    rows, columns = matrix.shape
    assert step.dtype in (torch.float32, torch.bfloat16) and tuple(step.shape) == (rows,)
    assert sizes.dtype == torch.int32 and packed.dtype == torch.uint8
    assert int(sizes.sum()) == packed.numel()
    data, integers, at = bytes(packed.tolist()), [], 0
    ranges = units(rows, columns, 4 if coded else 1)
    assert len(ranges) == sizes.numel()
    for (begin, end), size in zip(ranges, sizes.tolist(), strict=True):
        integers += unpack_unit(data[at:at + size], end - begin)
        at += size
    q = torch.tensor(integers, dtype=torch.int64).reshape(rows, columns)
    y = q.to(torch.float32) * step.float().reshape(rows, 1)
    limit = torch.finfo(x.dtype).max
    return y.clamp(-limit, limit).to(x.dtype).reshape(x.shape)
