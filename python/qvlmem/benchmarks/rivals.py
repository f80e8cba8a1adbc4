# SPDX-License-Identifier: Apache-2.0
"""What a PyTorch user would type instead of an operator of ours, by the keys of cases.Codec.rivals."""

import dataclasses

import torch

from qvlmem.benchmarks.contestant import Contestant

FLOATS = ('float32', 'bfloat16', 'float16')


def quantize_per_tensor(x):
    low, high = (value.item() for value in torch.aminmax(x))
    scale = max((max(high, 0.0) - min(low, 0.0)) / 255, 2.0**-126)
    return torch.quantize_per_tensor(x, scale, round(-128 - min(low, 0.0) / scale), torch.qint8)


def rows_of(x, group):
    return x.reshape(-1, group or x.shape[-1])


def prepacked(bits, group):
    """FBGEMM's rows with a scale and an offset each, which PyTorch carries for its embedding tables."""
    ops = torch.ops.quantized
    pack, unpack = {8: (ops.embedding_bag_byte_prepack, ops.embedding_bag_byte_unpack),
                    4: (ops.embedding_bag_4bit_prepack, ops.embedding_bag_4bit_unpack)}[bits]
    return Contestant(pack.__name__, lambda x: pack(rows_of(x, group)), lambda kept, x: unpack(kept).view(x.shape))


def lowrank_by_doubling(x, error=0.01):
    """svd_lowrank takes a rank; so twice the rank, until what is missing is small enough."""
    total, rank = x.norm() ** 2, 32
    while True:
        u, s, v = torch.svd_lowrank(x, min(rank, *x.shape), niter=1)
        if rank >= min(x.shape) or total - s.square().sum() <= error**2 * total:
            return u * s, v.mT
        rank *= 2


NOTHING = torch.empty(0, 0)
# An operator of PyTorch that makes three fresh tensors and computes nothing: what calling takes.
FRESH_OUTPUTS = Contestant('fresh outputs', lambda x: torch.ops.aten._linalg_svd(NOTHING), None, FLOATS, 64 << 10,
                           every_isa=True)
FULL_SVD = Contestant('torch.linalg.svd', lambda x: torch.linalg.svd(x, full_matrices=False),
                      lambda kept, x: (kept[0] * kept[1]) @ kept[2])
# Ours: what `auto` ends with where there is no low rank.
BOUNDED_ALONE = 'bounded alone'

RIVALS = {
    'int8-tensor': (Contestant('aminmax + quantize_per_tensor', quantize_per_tensor,
                               lambda kept, x: kept.dequantize()), FRESH_OUTPUTS),
    'int8-row': (prepacked(8, None), FRESH_OUTPUTS),
    'int8-128': (prepacked(8, 128), FRESH_OUTPUTS),
    'int4-64': (prepacked(4, 64), FRESH_OUTPUTS),
    'int4-128': (prepacked(4, 128), FRESH_OUTPUTS),
    'fp16': (Contestant('x.half()', lambda x: x.half(), lambda kept, x: kept.to(x.dtype),
                        ('float32', 'bfloat16')),),
    'sparse': (Contestant('x.to_sparse()', lambda x: x.to_sparse(), lambda kept, x: kept.to_dense(), FLOATS,
                          parts=lambda kept: (kept._indices(), kept._values())),),
    'profile': (Contestant('torch.aminmax', lambda x: torch.aminmax(x), None, FLOATS),),
    'lossless': (),
    'bounded': (),
    'svd': (FULL_SVD, Contestant('torch.svd_lowrank by doubling', lowrank_by_doubling,
                                 lambda kept, x: kept[0] @ kept[1])),
    'full-rank': (dataclasses.replace(FULL_SVD, decode=None),
                  Contestant(BOUNDED_ALONE, lambda x: torch.ops.qvlmem.compress(x, 'bounded', max_error=0.01),
                             parts=lambda kept: (), every_isa=True)),
}
