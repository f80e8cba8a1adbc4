# SPDX-License-Identifier: Apache-2.0
"""Attention from compressed parts: the manager, the cache and the pools at work together."""

import threading
from collections.abc import Mapping
from typing import TypedDict

import torch

from qvlmem import attention
from qvlmem._types import MemoryPool
from qvlmem.hardware import create_hardware_optimized_compression_manager
from qvlmem.manager import HierarchicalCompressionCache
from qvlmem.models.tensor_error import ErrorSums
from qvlmem.statistics import Statistics

_METHOD = 'IntegratedMemoryOptimizer.optimize_attention_mechanism'
_DEFAULT_SIZES = {'batch_size': 4, 'seq_len': 512, 'hidden_dim': 768, 'num_heads': 12}
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Whose memory holds what, compressed.
_POOLS = {'query': 'activations', 'key': 'kv_cache', 'value': 'kv_cache', 'attention_weights': 'activations'}


class Component(TypedDict):
    """What became of one tensor of the attention.

    Errors are as compress defines them: relative_error ||x - y|| / ||x||, worst_row_error the largest of those
    over the rows, max_element_error max |x - y| / max |x|. `error` is the one that the configuration's key
    `bound` names.
    """

    method: str  # the codec; none where the tensor is not compressed
    pool: str  # the kind of pool that holds it
    bytes_before: int
    bytes_after: int
    ratio: float
    error: float
    relative_error: float
    worst_row_error: float
    max_element_error: float


class AttentionComponents(TypedDict):
    """The tensors that an attention was computed from and gave, and what became of each."""

    query: torch.Tensor  # [batch, heads, seq, head_dim]
    key: torch.Tensor
    value: torch.Tensor
    attention_weights: torch.Tensor  # [batch, heads, seq, seq]
    output: torch.Tensor  # [batch, seq, hidden]
    components: dict[str, Component]


class IntegratedMemoryOptimizer:
    """Computes attention from parts that are held compressed, and measures what that cost.

    hardware_config: as for create_hardware_optimized_compression_manager. Thread-safe; one attention
    at a time is computed, others wait.

    manager   the MemoryCompressionManager that compresses; its config() shows what is in force
    cache     the HierarchicalCompressionCache that holds the parts of the last call, as 'attention/NAME'
    pools     torch.classes.qvlmem.MemoryPool by kind: 'kv_cache' has the compressed keys and values, 'activations'
              the compressed queries and weights and what is computed, 'temporary' what is restored

    The cache and each pool take at most the configuration's cpu_budget.
    """

    def __init__(self, hardware_config: Mapping[str, object] | None = None) -> None:
        self.manager = create_hardware_optimized_compression_manager(hardware_config)
        self.cache = HierarchicalCompressionCache(self.manager)
        config = ','.join(f'{key}:{value}' for key, value in self.manager.config().items() if value)
        self.pools: dict[str, MemoryPool] = {
            kind: torch.classes.qvlmem.MemoryPool(kind, config)
            for kind in ('activations', 'kv_cache', 'temporary')}
        self._lock = threading.Lock()

    @torch.no_grad()
    def optimize_attention_mechanism(
            self, batch_size: int = 4, seq_len: int = 512, hidden_dim: int = 768, num_heads: int = 12, *,
            query: torch.Tensor | None = None, key: torch.Tensor | None = None,
            value: torch.Tensor | None = None, seed: int = 0) -> AttentionComponents:
        """softmax(QK'/sqrt(d))V, no mask and no projection, from compressed Q, K, V and attention weights.

        query, key and value are all given ([batch_size, num_heads, seq_len, hidden_dim / num_heads] on the CPU,
        float32, float16 or bfloat16, finite), or all made: float32, standard normal by `seed`. Where they are
        given, sizes that are left at their defaults follow from them.

        Q, K and V are compressed and decompressed; the weights are computed from what came back, compressed and
        decompressed in turn; the output is computed from those weights and values. The compressed parts stay in
        the cache.

        Returns a dict: query, key, value and attention_weights as they came back, of the inputs' dtype, the
        output [batch_size, seq_len, hidden_dim], which is not compressed, and `components`: by these five names
        a dict with method, pool, bytes_before, bytes_after, ratio, error, relative_error, worst_row_error and
        max_element_error. A part's errors are those of its own compression, the output's are against the exact
        attention of the original Q, K and V in float64. The tensors lie in the pools' memory and give it back
        when they go.

        Raises ValueError or TypeError for arguments that are none of that, torch.OutOfMemoryError where a pool's
        or the cache's budget has no room.
        """
        sizes = {'batch_size': batch_size, 'seq_len': seq_len, 'hidden_dim': hidden_dim, 'num_heads': num_heads}
        given = {'query': query, 'key': key, 'value': value}
        are_given = any(tensor is not None for tensor in given.values())
        shape = _check_inputs(given, sizes) if are_given else _check_sizes(sizes)
        with self._lock:
            return self._attend(given if are_given else self._made(shape, seed), shape)

    def get_compression_statistics(self) -> Statistics:
        """Statistics of the manager, live: what all calls compressed, and in cpu_bytes what the cache holds."""
        return self.manager.get_compression_stats()

    def _made(self, shape, seed):
        generator = torch.Generator().manual_seed(seed)
        return {name: self.pools['activations'].empty(shape, torch.float32).normal_(generator=generator)
                for name in ('query', 'key', 'value')}

    def _attend(self, originals, shape):
        batch, heads, seq, head_dim = shape
        dtype = originals['query'].dtype
        temporary = self.pools['temporary']
        restored, components = {}, {}
        for name, tensor in originals.items():
            components[name] = self._hold(name, tensor)
            restored[name] = self._restore(name, temporary.empty(shape, dtype))
        weights = temporary.empty([batch, heads, seq, seq], dtype)
        attention.write_weights(restored['query'], restored['key'], weights)
        components['attention_weights'] = self._hold('attention_weights', weights)
        # In the place of the exact ones: they are the largest by far, and are not to lie side by side.
        self._restore('attention_weights', weights)
        output = self.pools['activations'].empty([batch, seq, heads * head_dim], dtype)
        attention.write_output(weights, restored['value'], output)
        components['output'] = self._compared(output, **originals)
        return {**restored, 'attention_weights': weights, 'output': output, 'components': components}

    def _hold(self, name, tensor):
        """Compresses a tensor into its pool and the cache; its Component."""
        pool = _POOLS[name]
        held = self.pools[pool].hold(self.manager.compress_tensor(tensor))
        self.cache.put_compressed(f'attention/{name}', held)
        errors = {'tensor': held.relative_error(), 'row': held.worst_row_error(),
                  'element': held.max_element_error()}
        return self._component(held.method(), pool, held.original_nbytes(), held.nbytes(), errors)

    def _restore(self, name, tensor):
        """What the cache holds of this name, written into a tensor."""
        return tensor.copy_(self.cache.get(f'attention/{name}'))

    def _compared(self, output, query, key, value):
        sums = ErrorSums()
        for index, rows in attention.row_blocks(query):
            sums.add(attention.exact_output(query, key, value, index, rows), output[index, rows])
        return self._component('none', 'activations', output.nbytes, output.nbytes, sums.errors())

    def _component(self, method, pool, before, after, errors):
        return Component(
            method=method, pool=pool, bytes_before=before, bytes_after=after, ratio=before / after,
            error=errors[self.manager.config()['bound']], relative_error=errors['tensor'],
            worst_row_error=errors['row'], max_element_error=errors['element'])


def _check_sizes(sizes):
    """[batch, heads, seq, head_dim]."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f'{_METHOD}: expected {name} to be an int, got {size!r}')
        if size < 1:
            raise ValueError(f'{_METHOD}: expected {name} to be at least 1, got {size}')
    hidden_dim, num_heads = sizes['hidden_dim'], sizes['num_heads']
    if hidden_dim % num_heads:
        raise ValueError(f'{_METHOD}: expected hidden_dim to be a multiple of num_heads ({num_heads}), '
                         f'got {hidden_dim}')
    return [sizes['batch_size'], num_heads, sizes['seq_len'], hidden_dim // num_heads]


def _check_inputs(given, sizes):
    """The shape of all three."""
    for name, tensor in given.items():
        if tensor is None:
            raise ValueError(f'{_METHOD}: expected query, key and value together, got no {name}')
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f'{_METHOD}: expected {name} to be a tensor, got {tensor!r}')
        got = f'{str(tensor.dtype).removeprefix("torch.")} with shape {list(tensor.shape)} on {tensor.device}'
        if tensor.dtype not in _DTYPES:
            raise TypeError(f'{_METHOD}: expected {name} to be float32, float16 or bfloat16, got {got}')
        if tensor.device.type != 'cpu' or tensor.layout != torch.strided:
            raise NotImplementedError(f'{_METHOD}: expected {name} to be dense and on cpu, got {got}')
        if tensor.dim() != 4 or tensor.numel() == 0:
            raise ValueError(f'{_METHOD}: expected {name} to have the shape [batch, heads, seq, head_dim], '
                             f'each at least 1, got {got}')
        like = given['query']
        if tensor.shape != like.shape:
            raise ValueError(f"{_METHOD}: expected {name} to have query's shape {list(like.shape)}, got {got}")
        if tensor.dtype != like.dtype:
            raise TypeError(f"{_METHOD}: expected {name} to have query's dtype {like.dtype}, got {got}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f'{_METHOD}: expected {name} to be finite, got NaN or infinities')
    batch, heads, seq, head_dim = shape = list(given['query'].shape)
    actual = {'batch_size': batch, 'seq_len': seq, 'hidden_dim': heads * head_dim, 'num_heads': heads}
    for name, size in sizes.items():
        if size not in (actual[name], _DEFAULT_SIZES[name]):
            raise ValueError(f'{_METHOD}: expected {name} to be {actual[name]}, as query, key and value have it, '
                             f'got {size!r}')
    return shape
