# SPDX-License-Identifier: Apache-2.0
"""Sample calls of every tensor-only operator, and the contract's schemas, for tests over all of them."""

import torch

from strategies import FLOATS, laid_out, values

# The public surface, word for word.
SCHEMAS = """
quantize(Tensor x, int bits=8, bool symmetric=True, int group_size=0, int? rounding_seed=None) -> (Tensor q, Tensor scale, Tensor zero_point)
dequantize(Tensor q, Tensor scale, Tensor zero_point, SymInt[] shape, int bits=8, int group_size=0, ScalarType? dtype=None) -> Tensor
to_fp16(Tensor x) -> (Tensor half, Tensor scale)
from_fp16(Tensor half, Tensor scale, ScalarType? dtype=None) -> Tensor
svd(Tensor x, bool adaptive_rank=True, float compression_ratio=0.5, float energy=0.99, int? rank=None, int seed=0) -> (Tensor u, Tensor v)
svd_reconstruct(Tensor u, Tensor v, SymInt[] shape, ScalarType? dtype=None) -> Tensor
sparsify(Tensor x, float sparsity_threshold=0.5, bool prune=True) -> (Tensor indices, Tensor values)
densify(Tensor indices, Tensor values, SymInt[] shape) -> Tensor
lossless_encode(Tensor x, int level=1) -> Tensor
lossless_decode(Tensor bytes, SymInt[] shape, ScalarType dtype) -> Tensor
profile_values(Tensor x) -> Tensor
profile(Tensor x) -> Dict(str, float)
compress(Tensor x, str method="auto", *, float max_error=0.01, str bound="tensor", bool symmetric=True, int group_size=128, bool adaptive_rank=True, float compression_ratio=0.5, float sparsity_threshold=0.5) -> __torch__.torch.classes.qvlmem.CompressedTensor
decompress(__torch__.torch.classes.qvlmem.CompressedTensor c) -> Tensor
pack(__torch__.torch.classes.qvlmem.CompressedTensor c) -> Tensor
unpack(Tensor frame, Device? device=None) -> __torch__.torch.classes.qvlmem.CompressedTensor
configure(str conf) -> ()
""".strip().splitlines()

TENSOR_OPS = ('quantize', 'dequantize', 'to_fp16', 'from_fp16', 'svd', 'svd_reconstruct', 'sparsify',
              'densify', 'lossless_encode', 'lossless_decode', 'profile_values')
# Ops whose output sizes depend on the data.
DYNAMIC_OPS = ('svd', 'sparsify', 'lossless_encode')
# Ops with an output or input that a gradient could pass through.
DIFFERENTIABLE_LOOKING = ('quantize', 'dequantize', 'to_fp16', 'from_fp16', 'svd', 'svd_reconstruct',
                          'sparsify', 'densify', 'profile_values')


def inputs():
    """Tensors that an op must take: dtypes, layouts, 0-d and empty ones."""
    for dtype in FLOATS:
        yield values('normal', (6, 33), dtype)
    for layout in ('offset', 'transposed', 'expanded'):
        yield laid_out(values('sparse', (3, 4, 10), torch.float32), layout)
    yield values('constant', (), torch.float32)
    yield torch.empty(0, 5)
    yield torch.empty(4, 0, dtype=torch.bfloat16)


def samples(op):
    """(arguments, keyword arguments) of calls of the operator `op`."""
    ops = torch.ops.qvlmem
    for x in inputs():
        shape = list(x.shape)
        if op == 'quantize':
            yield (x,), {}
            yield (x, 4, False, 8), {}
            yield (x, 8, True, -1, 7), {}
        elif op == 'dequantize':
            yield (*ops.quantize(x), shape), {}
            yield (*ops.quantize(x, 4, False, 8), shape, 4, 8, torch.bfloat16), {}
        elif op == 'to_fp16':
            yield (x,), {}
            yield (x.double(),), {}
        elif op == 'from_fp16':
            yield (*ops.to_fp16(x),), {}
            yield (*ops.to_fp16(x.double()), torch.float64), {}
        elif op == 'svd':
            yield (x,), {}
            yield (x, False, 0.25), {}
            if x.numel():
                yield (x,), {'rank': 1}
        elif op == 'svd_reconstruct':
            yield (*ops.svd(x), shape), {}
            yield (*ops.svd(x), shape, torch.float16), {}
        elif op == 'sparsify':
            yield (x,), {}
            yield (x, 0.9, False), {}
        elif op == 'densify':
            yield (*ops.sparsify(x), shape), {}
        elif op == 'lossless_encode':
            yield (x,), {}
            yield (x.view(torch.int16) if x.dtype.itemsize == 2 else x.long(), 2), {}
        elif op == 'lossless_decode':
            yield (ops.lossless_encode(x), shape, x.dtype), {}
        elif op == 'profile_values':
            yield (x,), {}
        else:
            raise ValueError(op)


def round_trips():
    """{name: function of one float tensor that uses an op and its inverse}."""
    ops = torch.ops.qvlmem

    def integers(x):
        q, scale, zero_point = ops.quantize(x, 8, False, 16)
        return ops.dequantize(q, scale, zero_point, x.shape, 8, 16)

    def nibbles(x):
        q, scale, zero_point = ops.quantize(x, 4, True, -1, 3)
        return ops.dequantize(q, scale, zero_point, x.shape, 4, -1, x.dtype)

    def halves(x):
        half, scale = ops.to_fp16(x)
        return ops.from_fp16(half, scale, x.dtype)

    def profiles(x):
        return ops.profile_values(x)

    def factors(x):
        u, v = ops.svd(x)
        return ops.svd_reconstruct(u, v, x.shape)

    def positions(x):
        indices, kept = ops.sparsify(x, 0.25)
        return ops.densify(indices, kept, x.shape)

    def streams(x):
        return ops.lossless_decode(ops.lossless_encode(x, 2), x.shape, x.dtype)

    return {f.__name__: f for f in (integers, nibbles, halves, profiles, factors, positions, streams)}


STATIC_TRIPS = ('integers', 'nibbles', 'halves', 'profiles')
DYNAMIC_TRIPS = ('factors', 'positions', 'streams')
