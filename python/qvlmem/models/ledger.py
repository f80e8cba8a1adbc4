# SPDX-License-Identifier: Apache-2.0
"""Compresses a model's tensors, gives them back, and keeps account of both, by kind."""

import collections
import dataclasses
import time

from qvlmem.commands import CommandError
from qvlmem.manager import MemoryCompressionManager

# What a model's memory consists of. The keys of the reports.
WEIGHTS = 'weights'
VISION = 'vision_features'
DEEPSTACK = 'deepstack_features'
KEYS = 'keys'
VALUES = 'values'
KINDS = (WEIGHTS, VISION, DEEPSTACK, KEYS, VALUES)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor: what it was, what it became, and its errors as measured when it was compressed."""
    kind: str
    name: str
    shape: tuple
    dtype: str
    method: str
    original_bytes: int
    compressed_bytes: int
    tensor_error: float  # ||x - y|| / ||x||
    worst_row_error: float  # the largest of those over the rows
    max_element_error: float  # max |x - y| / max |x|
    seconds: float  # to compress and to measure


class Ledger:
    """What compresses through one configuration; every CompressedTensor comes from `compress`."""

    def __init__(self, max_error=0.01, bound='row'):
        self.manager = MemoryCompressionManager(f'max_error:{max_error!r},bound:{bound}')
        self.entries = []
        self.restored_bytes = collections.Counter()  # by kind
        self.restored_seconds = collections.Counter()

    def compress(self, kind, name, x):
        began = time.perf_counter()
        compressed = self.manager.compress_tensor(x)
        seconds = time.perf_counter() - began
        self.entries.append(Entry(
            kind, name, tuple(x.shape), str(x.dtype).removeprefix('torch.'), compressed.method(),
            x.numel() * x.element_size(), held_bytes(name, compressed), compressed.relative_error(),
            compressed.worst_row_error(), compressed.max_element_error(), seconds))
        return compressed

    def decompress(self, kind, compressed):
        began = time.perf_counter()
        x = self.manager.decompress_tensor(compressed)
        self.restored_seconds[kind] += time.perf_counter() - began
        self.restored_bytes[kind] += compressed.original_nbytes()
        return x

    def kinds(self):
        """{kind: figures} of all that was compressed."""
        return {kind: self._figures(kind) for kind in KINDS
                if any(entry.kind == kind for entry in self.entries)}

    def total(self):
        return self._figures(*KINDS)

    def _figures(self, *kinds):
        entries = [entry for entry in self.entries if entry.kind in kinds]
        before = sum(entry.original_bytes for entry in entries)
        after = sum(entry.compressed_bytes for entry in entries)
        return {
            'tensors': len(entries),
            'bytes_before': before,
            'bytes_after': after,
            'ratio': before / after if after else 1.0,
            'codecs': dict(collections.Counter(entry.method for entry in entries).most_common()),
            'worst_tensor_error': max((entry.tensor_error for entry in entries), default=0.0),
            'worst_row_error': max((entry.worst_row_error for entry in entries), default=0.0),
            'compress_gb_per_s': _speed(before, sum(entry.seconds for entry in entries)),
            'decompress_gb_per_s': _speed(sum(self.restored_bytes[kind] for kind in kinds),
                                          sum(self.restored_seconds[kind] for kind in kinds)),
        }


def _speed(count, seconds):
    return count / seconds / 1e9 if seconds else 0.0


def storage_bytes(tensors):
    """Bytes of the storages under `tensors`, each storage once."""
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def held_bytes(name, compressed):
    """`nbytes()`, checked against the storages that its parts hold."""
    held = storage_bytes(compressed.parts())
    if held != compressed.nbytes():
        raise CommandError(f'{name}: nbytes() is {compressed.nbytes()}, its parts hold {held} bytes')
    return held
