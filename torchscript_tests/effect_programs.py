# SPDX-License-Identifier: Apache-2.0
"""A module whose calls have effects that nothing but a later call sees: what an optimizer must neither
drop, nor merge, nor move."""

from typing import List, Tuple

import torch
from torch import Tensor


class Effects(torch.nn.Module):
    """forward returns tensors, and numbers that tell how often each call took place, and when."""

    def __init__(self):
        super().__init__()
        self.manager = torch.classes.qvlmem.CompressionManager('method:int8')
        self.cache = torch.classes.qvlmem.HierarchicalCache(self.manager, 'cpu_budget:1MiB')
        self.pool = torch.classes.qvlmem.MemoryPool('kv_cache', 'cpu_budget:2MiB')

    def forward(self, x: Tensor) -> Tuple[List[Tensor], List[float]]:
        tensors: List[Tensor] = []
        numbers: List[float] = []
        self.count(x, tensors, numbers)
        self.store(x, tensors, numbers)
        self.take(numbers)
        self.ask(x, numbers)
        return tensors, numbers

    def count(self, x: Tensor, tensors: List[Tensor], numbers: List[float]):
        """The manager: calls alike, calls whose result nobody uses, and a reset in between."""
        self.manager.reset_stats()
        self.manager.compress_tensor(x)
        self.manager.compress_tensor(x)
        first = self.manager.compress_tensor(x, method='int4')
        second = self.manager.compress_tensor(x, method='int4')
        tensors.append(self.manager.decompress_tensor(first))
        tensors.append(self.manager.decompress_tensor(second))
        numbers.append(self.manager.get_compression_stats()['compression_attempts'])
        self.manager.reset_stats()
        numbers.append(self.manager.get_compression_stats()['compression_attempts'])
        self.manager.compress_tensor(x)
        numbers.append(self.manager.get_compression_stats()['compression_attempts'])

    def store(self, x: Tensor, tensors: List[Tensor], numbers: List[float]):
        """The cache: puts alike, a get after each put, a get that nobody uses, contains around remove."""
        self.cache.put('a', x)
        self.cache.put('a', x)
        tensors.append(self.cache.get('a'))
        self.cache.put('a', x + 1)
        tensors.append(self.cache.get('a'))
        self.cache.get('a')
        self.cache.prefetch(['a'])
        self.cache.flush()
        numbers.append(float(self.cache.contains('a')))
        self.cache.remove('a')
        numbers.append(float(self.cache.contains('a')))
        numbers.append(float(self.cache.remove('a')))
        self.cache.put('b', x)
        numbers.append(float(len(self.cache.keys())))
        numbers.append(self.cache.stats()['cpu_bytes'])
        self.cache.clear()
        numbers.append(float(len(self.cache.keys())))
        numbers.append(self.cache.stats()['cpu_bytes'])
        numbers.append(self.cache.stats()['compression_attempts'])
        numbers.append(self.cache.stats()['hits'])

    def take(self, numbers: List[float]):
        """The pool: blocks that nobody uses, and what is kept before and after trim."""
        self.pool.empty([1000], torch.float32)
        self.pool.empty([1000], torch.float32)
        held = self.pool.empty(shape=[50], dtype=torch.bfloat16)
        numbers.append(self.pool.stats()['hits'])
        numbers.append(self.pool.stats()['misses'])
        numbers.append(self.pool.stats()['reserved_bytes'])
        self.pool.trim()
        numbers.append(self.pool.stats()['reserved_bytes'])
        numbers.append(float(held.numel()))

    def ask(self, x: Tensor, numbers: List[float]):
        """The process: its configuration as managers see it, and its statistics around a call."""
        torch.ops.qvlmem.configure('max_error:0.5')
        config = torch.classes.qvlmem.CompressionManager().config()
        numbers.append(float(config['max_error']))
        torch.ops.qvlmem.configure('max_error:0.01')
        config = torch.classes.qvlmem.CompressionManager().config()
        numbers.append(float(config['max_error']))
        before = torch.ops.qvlmem.memory_stats()['compression_attempts']
        self.manager.compress_tensor(x)
        after = torch.ops.qvlmem.memory_stats()['compression_attempts']
        numbers.append(after - before)


def mixed(x: Tensor) -> Tensor:
    """Calls without effect, of which an optimizer may drop or merge some, and calls with one."""
    torch.ops.qvlmem.lossless_encode(x)
    first = torch.ops.qvlmem.to_fp16(x)[0]
    second = torch.ops.qvlmem.to_fp16(x)[0]
    torch.ops.qvlmem.memory_stats()
    torch.ops.qvlmem.memory_stats()
    torch.ops.qvlmem.configure('')
    torch.ops.qvlmem.configure('')
    return first + second
