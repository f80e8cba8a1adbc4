# SPDX-License-Identifier: Apache-2.0
"""softmax(QK'/sqrt(d))V with no mask and no projection, a block of query rows at a time.

Q, K, V are [batch, heads, seq, head_dim], weights [batch, heads, seq, seq], outputs [batch, seq,
heads * head_dim]. Blocks are computed in float32 (exact_output in float64) whatever the tensors' dtype.
"""

import math
from collections.abc import Iterator

import torch

_BLOCK = 1 << 20  # scores at a time


def row_blocks(query: torch.Tensor) -> Iterator[tuple[int, slice]]:
    """(batch index, query rows) of blocks that cover everything once, in order."""
    batch, heads, seq, _ = query.shape
    rows = max(1, _BLOCK // (heads * seq))
    for index in range(batch):
        for begin in range(0, seq, rows):
            yield index, slice(begin, min(begin + rows, seq))


def write_weights(query: torch.Tensor, key: torch.Tensor, weights: torch.Tensor) -> None:
    """weights = softmax(QK'/sqrt(d))."""
    for index, rows in row_blocks(query):
        weights[index, :, rows] = _block_weights(query[index, :, rows], key[index], torch.float32)


def write_output(weights: torch.Tensor, value: torch.Tensor, output: torch.Tensor) -> None:
    """output = weights V, the heads side by side."""
    for index, rows in row_blocks(value):
        output[index, rows] = _side_by_side(weights[index, :, rows].float() @ value[index].float())


def exact_output(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, index: int,
                 rows: slice) -> torch.Tensor:
    """One block of the output in float64, [rows, heads * head_dim]."""
    weights = _block_weights(query[index, :, rows], key[index], torch.float64)
    return _side_by_side(weights @ value[index].double())


def _block_weights(query, key, dtype):
    scaled = query.to(dtype) / math.sqrt(query.shape[-1])
    return torch.softmax(scaled @ key.to(dtype).transpose(-2, -1), dim=-1)


def _side_by_side(heads):
    return heads.transpose(0, 1).flatten(1)
