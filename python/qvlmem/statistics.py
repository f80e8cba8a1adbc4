# SPDX-License-Identifier: Apache-2.0
"""Statistics as attributes and as a mapping, read anew each time."""

import collections.abc


class Statistics(collections.abc.Mapping):
    """The counters of a manager, cache or the process, live: every look gives the count of that moment.

    Names (as attributes and as keys): tensors_compressed, compression_attempts,
    average_compression_ratio, compression_time_seconds, decompression_time_seconds,
    memory_saved_bytes, gpu_bytes, cpu_bytes, ssd_bytes, hits, misses, evictions, spill_write_bytes,
    spill_read_bytes. dict(statistics) keeps the counts of one moment.
    """

    def __init__(self, read):
        self._read = read

    def __getattr__(self, name):
        if name.startswith('_'):
            raise AttributeError(name)
        counts = self._read()
        if name not in counts:
            raise AttributeError(f'statistics have no {name!r}; they have {", ".join(counts)}')
        return counts[name]

    def __getitem__(self, name):
        return self._read()[name]

    def __iter__(self):
        return iter(self._read())

    def __len__(self):
        return len(self._read())

    def __dir__(self):
        return [*super().__dir__(), *self._read()]

    def __repr__(self):
        return f'Statistics({", ".join(f"{name}={value:g}" for name, value in self.items())})'
