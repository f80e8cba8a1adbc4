# SPDX-License-Identifier: Apache-2.0
"""The codec functions of the package, over torch.ops.qvlmem."""

import torch

from qvlmem._types import CompressedTensor


def compress(x: torch.Tensor, method: str = 'auto', *, max_error: float = 0.01, bound: str = 'tensor',
             symmetric: bool = True, group_size: int = 128, adaptive_rank: bool = True,
             compression_ratio: float = 0.5, sparsity_threshold: float = 0.5) -> CompressedTensor:
    """Compresses a tensor of any shape and strides.

    method: auto, none, int8, int4, fp16, bounded, svd, sparse or lossless. Of the keywords max_error and bound
    ('tensor', 'row' or 'element') are for auto and bounded; symmetric and group_size for int8 and int4;
    adaptive_rank and compression_ratio for svd; sparsity_threshold for sparse. What auto takes of the methods
    that meet the bound is for the configuration's key `prefer` to say.

    Returns a torch.classes.qvlmem.CompressedTensor. A tensor that requires grad is taken by its value.
    Raises ValueError for an unknown method, an option out of range or values that the method refuses,
    TypeError for a dtype that it does not take.
    """
    return torch.ops.qvlmem.compress(
        x, method, max_error=max_error, bound=bound, symmetric=symmetric, group_size=group_size,
        adaptive_rank=adaptive_rank, compression_ratio=compression_ratio, sparsity_threshold=sparsity_threshold)


def decompress(c: CompressedTensor) -> torch.Tensor:
    """The tensor in a CompressedTensor: contiguous, of the original's shape, dtype and device."""
    return torch.ops.qvlmem.decompress(c)


def pack(c: CompressedTensor) -> torch.Tensor:
    """A CompressedTensor as one flat uint8 CPU tensor with a checksum (format: docs/format.md)."""
    return torch.ops.qvlmem.pack(c)


def unpack(frame: torch.Tensor, device: torch.device | str | None = None) -> CompressedTensor:
    """The CompressedTensor in a frame that pack made. ValueError for anything that is damaged."""
    return torch.ops.qvlmem.unpack(frame, device)
