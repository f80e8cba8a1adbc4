# SPDX-License-Identifier: Apache-2.0
"""One class a family of codecs. What compress returns is a torch.classes.qvlmem.CompressedTensor."""

import torch

from qvlmem._codecs import compress, decompress
from qvlmem._types import CompressedTensor


class _Compressor:
    """What every compressor does the same way."""

    def decompress(self, compressed: CompressedTensor) -> torch.Tensor:
        """The tensor in a CompressedTensor: contiguous, of the original's shape, dtype and device."""
        return decompress(compressed)


class QuantizationCompressor(_Compressor):
    """INT8, INT4 and FP16 with scales taken from the values' own range.

    int8 and int4 keep each element within half a step of its group's scale; fp16 scales by a power of two, so
    that nothing finite overflows.
    """

    def compress(self, tensor: torch.Tensor, method: str = 'int8', symmetric: bool = True,
                 group_size: int = 128) -> CompressedTensor:
        """Compresses a float32, float16 or bfloat16 tensor (fp16: float64 too) of any shape and strides.

        method: int8, int4 or fp16. symmetric: range centred on 0, else with a zero point. group_size: values
        of the last dimension that share a scale (0: the whole tensor, -1: a row). Raises ValueError for
        another method and for NaN or infinities (int8, int4), TypeError for another dtype.
        """
        if method not in ('int8', 'int4', 'fp16'):
            raise ValueError('QuantizationCompressor.compress: expected method to be int8, int4 or fp16, '
                             f'got {method!r}')
        return compress(tensor, method, symmetric=symmetric, group_size=group_size)


class SVDCompressor(_Compressor):
    """Two low-rank factors in place of the matrix [all but the last dimension, the last]."""

    def compress(self, tensor: torch.Tensor, adaptive_rank: bool = True,
                 compression_ratio: float = 0.5) -> CompressedTensor:
        """Compresses a float32, float16 or bfloat16 tensor.

        adaptive_rank: the smallest rank that keeps 99 % of the energy (sum of squared singular values); else
        the largest at which the factors take at most compression_ratio of the tensor's bytes. Raises
        ValueError for NaN, infinities or a ratio outside (0, 1], TypeError for another dtype.
        """
        return compress(tensor, 'svd', adaptive_rank=adaptive_rank,
                        compression_ratio=compression_ratio)


class SparseCompressor(_Compressor):
    """Only what is not zero, with its positions."""

    def compress(self, tensor: torch.Tensor, sparsity_threshold: float = 0.5) -> CompressedTensor:
        """Compresses a float32, float16 or bfloat16 tensor.

        Where less than sparsity_threshold of the elements are zero, the smallest by magnitude are dropped
        until that share is. Raises ValueError for NaN, infinities or a threshold outside [0, 1], TypeError for
        another dtype.
        """
        return compress(tensor, 'sparse', sparsity_threshold=sparsity_threshold)


class AutoCompressor(_Compressor):
    """The codec that holds the fewest bytes within an error bound (or what the key `prefer` says).

    max_error: 0 is bit-exact. bound: what it is the bound of: 'tensor' (||x - y|| / ||x||, Frobenius), 'row' (the
    same for every row) or 'element' (max |x - y| / max |x|).
    """

    def __init__(self, max_error: float = 0.01, bound: str = 'tensor') -> None:
        self.max_error = max_error
        self.bound = bound

    def compress(self, tensor: torch.Tensor) -> CompressedTensor:
        """Compresses a tensor of any dtype; the result's method() says how."""
        return compress(tensor, 'auto', max_error=self.max_error, bound=self.bound)

