# SPDX-License-Identifier: Apache-2.0
"""The codec functions of the package, over torch.ops.qvlmem."""

import torch


def compress(x, method='auto', **options):
    """Compresses a tensor of any shape and strides.

    method: auto, none, int8, int4, fp16, bounded, svd, sparse or lossless. Options (keywords): max_error=0.01
    and bound='tensor' (or 'row', 'element'), for auto and bounded; symmetric=True and group_size=128 for int8
    and int4; adaptive_rank=True and compression_ratio=0.5 for svd; sparsity_threshold=0.5 for sparse. What auto
    takes of the methods that meet the bound is for the configuration's key `prefer` to say.

    Returns a torch.classes.qvlmem.CompressedTensor. A tensor that requires grad is taken by its value.
    Raises ValueError for an unknown method, an option out of range or values that the method refuses,
    TypeError for a dtype that it does not take.
    """
    return torch.ops.qvlmem.compress(x, method, **options)


def decompress(c):
    """The tensor in a CompressedTensor: contiguous, of the original's shape, dtype and device."""
    return torch.ops.qvlmem.decompress(c)


def pack(c):
    """A CompressedTensor as one flat uint8 CPU tensor with a checksum (format: docs/format.md)."""
    return torch.ops.qvlmem.pack(c)


def unpack(frame, device=None):
    """The CompressedTensor in a frame that pack made. ValueError for anything that is damaged."""
    return torch.ops.qvlmem.unpack(frame, device)
