# SPDX-License-Identifier: Apache-2.0
"""Statistics as attributes and as a mapping, read anew each time."""

from collections.abc import Callable, Iterator, Mapping


class Statistics(Mapping[str, float]):
    """The counters of a manager, cache or the process, live: every look gives the count of that moment.

    Each name below is an attribute and a key. dict(statistics) keeps the counts of one moment.
    """

    tensors_compressed: float
    compression_attempts: float
    average_compression_ratio: float
    compression_time_seconds: float
    decompression_time_seconds: float
    memory_saved_bytes: float
    gpu_bytes: float
    cpu_bytes: float
    ssd_bytes: float
    hits: float
    misses: float
    evictions: float
    spill_write_bytes: float
    spill_read_bytes: float

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def __getattr__(self, name: str) -> float:
        if name.startswith('_'):
            raise AttributeError(name)
        counts = self._read()
        if name not in counts:
            raise AttributeError(f'statistics have no {name!r}; they have {", ".join(counts)}')
        return counts[name]

    def __getitem__(self, name: str) -> float:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._read()]

    def __repr__(self) -> str:
        return f'Statistics({", ".join(f"{name}={value:g}" for name, value in self.items())})'
