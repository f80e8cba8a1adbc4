# SPDX-License-Identifier: Apache-2.0
"""What type checkers know of the classes that the library itself defines.

Their objects are those of torch.classes.qvlmem, which Python sees as torch.ScriptObject.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class CompressedTensor(Protocol):
    """A tensor in compressed form: torch.classes.qvlmem.CompressedTensor. compress and unpack make them."""

    def method(self) -> str:
        """none, lossless, fp16, int8, int4, bounded, svd or sparse."""

    def shape(self) -> Sequence[int]:
        """The original's."""

    def nbytes(self) -> int:
        """Bytes really held: the storages of the parts, each once."""

    def original_nbytes(self) -> int:
        """Bytes of the original's elements."""

    def ratio(self) -> float:
        """original_nbytes() / nbytes(); 1 for an empty tensor."""

    def relative_error(self) -> float:
        """||x - y|| / ||x|| (Frobenius; y what comes back), measured when compressed; -1 where not measured."""

    def worst_row_error(self) -> float:
        """The largest of the same over the rows (all but the last dimension)."""

    def max_element_error(self) -> float:
        """max |x - y| / max |x|, likewise."""

    def parts(self) -> Sequence[torch.Tensor]:
        """What is held, not copies: writing to them changes what decompress gives."""

    def to(self, device: torch.device) -> 'CompressedTensor':
        """The same on another device."""

    def to_sparse_coo(self) -> torch.Tensor:
        """torch's own sparse COO tensor of what decompress gives."""


@runtime_checkable
class MemoryPool(Protocol):
    """CPU memory for one kind of tensor, kept for the next of its size: torch.classes.qvlmem.MemoryPool."""

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialized, contiguous tensor; torch.OutOfMemoryError where the pool's cpu_budget has no room."""

    def hold(self, c: CompressedTensor) -> CompressedTensor:
        """c with copies of its parts in this pool's memory."""

    def stats(self) -> Mapping[str, float]:
        """allocated_bytes (of tensors alive), reserved_bytes (with free blocks), peaks of both, hits, misses."""

    def trim(self) -> None:
        """Gives free blocks back to the system."""
