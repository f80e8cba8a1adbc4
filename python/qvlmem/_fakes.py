# SPDX-License-Identifier: Apache-2.0
"""Fake kernels of the ops whose output sizes depend on the data.

PyTorch takes these from Python alone (torch.library.get_ctx().new_dynamic_size()). All other ops have
theirs in the library itself.
"""

import math

import torch


@torch.library.register_fake('qvlmem::lossless_encode')
def _lossless_encode(x, level=1):
    if level not in (1, 2):
        raise ValueError(f'qvlmem::lossless_encode: expected level to be 1 or 2, got {level}')
    return x.new_empty([torch.library.get_ctx().new_dynamic_size()], dtype=torch.uint8)


def _is_above(size, bound):
    """size > bound; False where the size is itself dynamic and nothing is known of it."""
    # Importing this takes longer than all else here, and whoever traces has it anyway.
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
    try:
        return bool(size > bound)
    except GuardOnDataDependentSymNode:
        return False


@torch.library.register_fake('qvlmem::sparsify')
def _sparsify(x, sparsity_threshold=0.5, prune=True):
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError('qvlmem::sparsify: expected x to be float32, float16 or bfloat16, got '
                        f'{x.dtype}')
    if not 0 <= sparsity_threshold <= 1:
        raise ValueError('qvlmem::sparsify: expected sparsity_threshold to be in [0, 1], got '
                         f'{sparsity_threshold}')
    nnz = torch.library.get_ctx().new_dynamic_size()
    wide = _is_above(x.numel(), 2**31)
    return x.new_empty([nnz], dtype=torch.int64 if wide else torch.int32), x.new_empty([nnz])


@torch.library.register_fake('qvlmem::svd')
def _svd(x, adaptive_rank=True, compression_ratio=0.5, energy=0.99, rank=None, seed=0):
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f'qvlmem::svd: expected x to be float32, float16 or bfloat16, got {x.dtype}')
    for name, share in (('compression_ratio', compression_ratio), ('energy', energy)):
        if not 0 < share <= 1:
            raise ValueError(f'qvlmem::svd: expected {name} to be in (0, 1], got {share}')
    rows = math.prod(x.shape[:-1])
    columns = x.shape[-1] if x.dim() else 1
    kept = torch.library.get_ctx().new_dynamic_size() if rank is None else rank
    return x.new_empty([rows, kept]), x.new_empty([kept, columns])
