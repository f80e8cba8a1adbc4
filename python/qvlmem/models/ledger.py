# SPDX-License-Identifier: Apache-2.0
"""Compresses a model's tensors and keeps account of them, by kind."""

import collections
import dataclasses
import time

import torch

from qvlmem.commands import CommandError
from qvlmem.models import tensor_error

# What one tensor's error may exceed the bound by: rounding in how we measure it.
MEASURED = 1 + 1e-6


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor: what it was, what it became, what that took (seconds) and cost (errors)."""
    kind: str
    name: str
    shape: tuple
    dtype: str
    method: str
    original_bytes: int
    compressed_bytes: int
    compress_seconds: float
    decompress_seconds: float
    exact: bool
    errors: dict  # by bound; empty where the tensor has NaN or infinities


class Ledger:
    """Every tensor goes through `round_trip`; `kinds` and `total` tell what that came to."""

    def __init__(self, max_error, bound):
        self.max_error = max_error
        self.bound = bound
        self.entries = []

    def round_trip(self, kind, name, x):
        """(compressed, what comes back). Raises CommandError where the library breaks its word."""
        began = time.perf_counter()
        compressed = torch.ops.qvlmem.compress(x, 'auto', max_error=self.max_error, bound=self.bound)
        between = time.perf_counter()
        y = torch.ops.qvlmem.decompress(compressed)
        ended = time.perf_counter()
        if (y.shape, y.dtype) != (x.shape, x.dtype):
            raise CommandError(f'{name} ({x.dtype}, shape {list(x.shape)}) came back as {y.dtype}, '
                               f'shape {list(y.shape)}')
        exact = tensor_error.same_bits(x, y)
        errors = {}
        if bool(torch.isfinite(x).all()):
            errors = tensor_error.relative_errors(x, y)
        self.entries.append(Entry(
            kind, name, tuple(x.shape), str(x.dtype).removeprefix('torch.'), compressed.method(),
            x.numel() * x.element_size(), held_bytes(name, compressed), between - began,
            ended - between, exact, errors))
        self._check_bound(self.entries[-1])
        return compressed, y

    def _check_bound(self, entry):
        if entry.exact:
            return
        error = entry.errors.get(self.bound)
        if self.max_error == 0 or error is None or not error <= self.max_error * MEASURED:
            raise CommandError(
                f'{entry.name} ({entry.dtype}, shape {list(entry.shape)}, stored as {entry.method}) '
                f'came back with {self.bound} error {error}, the bound was {self.max_error}')

    def kinds(self):
        """{kind: figures}, in the order in which kinds first came."""
        entries = collections.defaultdict(list)
        for entry in self.entries:
            entries[entry.kind].append(entry)
        return {kind: self._figures(members) for kind, members in entries.items()}

    def total(self, *without):
        return self._figures([entry for entry in self.entries if entry.kind not in without])

    def _figures(self, entries):
        before = sum(entry.original_bytes for entry in entries)
        after = sum(entry.compressed_bytes for entry in entries)
        return {
            'tensors': len(entries),
            'bytes_before': before,
            'bytes_after': after,
            'ratio': before / after if after else 1.0,
            'codecs': dict(collections.Counter(entry.method for entry in entries).most_common()),
            'worst_error': max((entry.errors.get(self.bound, 0.0) for entry in entries), default=0.0),
            'exact': all(entry.exact for entry in entries),
            'compress_gb_per_s': _speed(before, sum(e.compress_seconds for e in entries)),
            'decompress_gb_per_s': _speed(before, sum(e.decompress_seconds for e in entries)),
        }


def _speed(count, seconds):
    return count / seconds / 1e9 if seconds else 0.0


def held_bytes(name, compressed):
    """`nbytes()`, checked against the storages that its parts hold, each counted once."""
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes()
                for part in compressed.parts()}
    held = sum(storages.values())
    if held != compressed.nbytes():
        raise CommandError(f'{name}: nbytes() is {compressed.nbytes()}, its parts hold {held} bytes')
    return held
