# SPDX-License-Identifier: Apache-2.0
"""The manager and the cache, over torch.classes.qvlmem."""

from collections.abc import Iterable

import torch

from qvlmem._types import CompressedTensor
from qvlmem.statistics import Statistics


class MemoryCompressionManager:
    """Compresses with one configuration, and counts.

    config: 'key:value,key:value' over the process's configuration (QVLMEM_ALLOC_CONF and
    torch.ops.qvlmem.configure). ValueError names a bad key or value and what is accepted. Thread-safe.
    """

    def __init__(self, config: str = '') -> None:
        self._manager = torch.classes.qvlmem.CompressionManager(config)

    def compress_tensor(self, tensor: torch.Tensor, method: str = 'auto') -> CompressedTensor:
        """A CompressedTensor of `tensor`; auto is what the configuration's key `method` says."""
        return self._manager.compress_tensor(tensor, method)

    def decompress_tensor(self, compressed: CompressedTensor) -> torch.Tensor:
        """The tensor in a CompressedTensor: contiguous, of the original's shape, dtype and device."""
        return self._manager.decompress_tensor(compressed)

    def get_compression_stats(self) -> Statistics:
        """Statistics since the last reset, live."""
        return Statistics(self._manager.get_compression_stats)

    def reset_stats(self) -> None:
        """Counts from zero again."""
        self._manager.reset_stats()

    def config(self) -> dict[str, str]:
        """Every configuration key with the value in force, as a dict of str."""
        return dict(self._manager.config())

    @property
    def script_object(self) -> torch.ScriptObject:
        """The torch.classes.qvlmem.CompressionManager beneath, for scripted modules."""
        return self._manager


class HierarchicalCompressionCache:
    """Tensors by key, held compressed within byte budgets, over the tiers that this version has (cpu).

    manager: a MemoryCompressionManager (None: one of its own). config goes before the manager's. Thread-safe.
    """

    def __init__(self, manager: MemoryCompressionManager | None = None, config: str = '') -> None:
        self.manager = MemoryCompressionManager() if manager is None else manager
        script_object = getattr(self.manager, 'script_object', self.manager)
        self._cache = torch.classes.qvlmem.HierarchicalCache(script_object, config)

    def put(self, key: str, tensor: torch.Tensor) -> None:
        """Stores a snapshot of `tensor`. torch.OutOfMemoryError where no tier has room; what is there stays."""
        self._cache.put(key, tensor)

    def put_compressed(self, key: str, compressed: CompressedTensor) -> None:
        """The same with what is compressed already. It is shared, not copied."""
        self._cache.put_compressed(key, compressed)

    def get(self, key: str) -> torch.Tensor:
        """A fresh tensor. IndexError names a key that is missing."""
        return self._cache.get(key)

    def contains(self, key: str) -> bool:
        """Whether something is stored under this key."""
        return self._cache.contains(key)

    __contains__ = contains

    def tier_of(self, key: str) -> str:
        """'gpu', 'cpu' or 'ssd'. IndexError names a key that is missing."""
        return self._cache.tier_of(key)

    def prefetch(self, keys: Iterable[str]) -> None:
        """A hint that these keys are wanted soon. A missing one is no error."""
        self._cache.prefetch(list(keys))

    def remove(self, key: str) -> bool:
        """True where there was one."""
        return self._cache.remove(key)

    def keys(self) -> list[str]:
        """All keys, sorted."""
        return list(self._cache.keys())

    def __len__(self) -> int:
        return len(self._cache.keys())

    def flush(self) -> None:
        """Returns when everything that is to be on disk is there."""
        self._cache.flush()

    def clear(self) -> None:
        """Removes every key."""
        self._cache.clear()

    def stats(self) -> Statistics:
        """Statistics of this cache, live."""
        return Statistics(self._cache.stats)
