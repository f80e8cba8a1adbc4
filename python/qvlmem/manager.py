# SPDX-License-Identifier: Apache-2.0
"""The manager and the cache, over torch.classes.qvlmem."""

import torch

from qvlmem.statistics import Statistics


class MemoryCompressionManager:
    """Compresses with one configuration, and counts.

    config: 'key:value,key:value' over the process's configuration (QVLMEM_ALLOC_CONF and
    torch.ops.qvlmem.configure). ValueError names a bad key or value and what is accepted. Thread-safe.
    """

    def __init__(self, config=''):
        self._manager = torch.classes.qvlmem.CompressionManager(config)

    def compress_tensor(self, tensor, method='auto'):
        """A CompressedTensor of `tensor`; auto is what the configuration's key `method` says."""
        return self._manager.compress_tensor(tensor, method)

    def decompress_tensor(self, compressed):
        """The tensor in a CompressedTensor: contiguous, of the original's shape, dtype and device."""
        return self._manager.decompress_tensor(compressed)

    def get_compression_stats(self):
        """Statistics since the last reset, live."""
        return Statistics(self._manager.get_compression_stats)

    def reset_stats(self):
        """Counts from zero again."""
        self._manager.reset_stats()

    def config(self):
        """Every configuration key with the value in force, as a dict of str."""
        return dict(self._manager.config())

    @property
    def script_object(self):
        """The torch.classes.qvlmem.CompressionManager beneath, for scripted modules."""
        return self._manager


class HierarchicalCompressionCache:
    """Tensors by key, held compressed within byte budgets, over the tiers that this version has (cpu).

    manager: a MemoryCompressionManager (None: one of its own). config goes before the manager's. Thread-safe.
    """

    def __init__(self, manager=None, config=''):
        self.manager = MemoryCompressionManager() if manager is None else manager
        script_object = getattr(self.manager, 'script_object', self.manager)
        self._cache = torch.classes.qvlmem.HierarchicalCache(script_object, config)

    def put(self, key, tensor):
        """Stores a snapshot of `tensor`. torch.OutOfMemoryError where no tier has room; what is there stays."""
        self._cache.put(key, tensor)

    def get(self, key):
        """A fresh tensor. IndexError names a key that is missing."""
        return self._cache.get(key)

    def contains(self, key):
        return self._cache.contains(key)

    __contains__ = contains

    def tier_of(self, key):
        """'gpu', 'cpu' or 'ssd'. IndexError names a key that is missing."""
        return self._cache.tier_of(key)

    def prefetch(self, keys):
        """A hint that these keys are wanted soon. A missing one is no error."""
        self._cache.prefetch(list(keys))

    def remove(self, key):
        """True where there was one."""
        return self._cache.remove(key)

    def keys(self):
        """All keys, sorted."""
        return list(self._cache.keys())

    def __len__(self):
        return len(self._cache.keys())

    def flush(self):
        """Returns when everything that is to be on disk is there."""
        self._cache.flush()

    def clear(self):
        """Removes every key."""
        self._cache.clear()

    def stats(self):
        """Statistics of this cache, live."""
        return Statistics(self._cache.stats)
