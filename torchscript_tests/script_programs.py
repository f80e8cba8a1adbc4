# SPDX-License-Identifier: Apache-2.0
"""TorchScript programs over every operator, with control flow, as a user would write them.

They import nothing of qvlmem: the library is loaded as a file before they are compiled.
"""

from typing import Dict, List, Tuple

import torch
from torch import Tensor


def quantized(x: Tensor, bits: int, symmetric: bool) -> Tensor:
    """The coarsest group size whose error is below a hundredth, tried from coarse to fine."""
    y = torch.zeros_like(x)
    for group_size in [0, -1, 128, 16]:
        q, scale, zero_point = torch.ops.qvlmem.quantize(x, bits, symmetric, group_size)
        y = torch.ops.qvlmem.dequantize(q, scale, zero_point, x.shape, bits, group_size, x.dtype)
        if float((x - y).norm()) < 0.01 * float(x.norm()):
            break
    return y


def quantized_by_keyword(x: Tensor) -> Tensor:
    q, scale, zero_point = torch.ops.qvlmem.quantize(x=x, rounding_seed=7, group_size=32, bits=4)
    return torch.ops.qvlmem.dequantize(q=q, scale=scale, zero_point=zero_point, shape=x.shape, bits=4,
                                       group_size=32, dtype=torch.float32)


def halved(x: Tensor) -> Tensor:
    half, scale = torch.ops.qvlmem.to_fp16(x)
    while float(scale) > 1e10:
        x = x / 1024
        half, scale = torch.ops.qvlmem.to_fp16(x)
    return torch.ops.qvlmem.from_fp16(half, scale, dtype=x.dtype)


def factored(x: Tensor, ranks: List[int]) -> Tensor:
    u, v = torch.ops.qvlmem.svd(x, energy=0.999)
    for rank in ranks:
        if rank < u.size(1):
            u, v = torch.ops.qvlmem.svd(x, rank=rank)
    return torch.ops.qvlmem.svd_reconstruct(u, v, x.shape)


def sparsified(x: Tensor, thresholds: List[float]) -> Tensor:
    kept = x
    for threshold in thresholds:
        indices, values = torch.ops.qvlmem.sparsify(kept, sparsity_threshold=threshold)
        if indices.numel() > 0:
            kept = torch.ops.qvlmem.densify(indices, values, x.shape)
    return kept


def exact(x: Tensor, level: int) -> Tensor:
    encoded = torch.ops.qvlmem.lossless_encode(x, level=level)
    return torch.ops.qvlmem.lossless_decode(encoded, x.shape, x.dtype)


def profiled(x: Tensor) -> Tuple[Tensor, List[str]]:
    named: Dict[str, float] = torch.ops.qvlmem.profile(x)
    values = torch.ops.qvlmem.profile_values(x)
    return values * named['absmax'], sorted(named.keys())


def smallest(x: Tensor, methods: List[str], max_error: float) -> Tuple[Tensor, str]:
    """compress, its result's methods and decompress, in a loop that keeps objects across rounds."""
    best = torch.ops.qvlmem.compress(x, 'none')
    for method in methods:
        c = torch.ops.qvlmem.compress(x, method, max_error=max_error, bound='row', group_size=64)
        if c.nbytes() < best.nbytes() and c.relative_error() <= max_error:
            best = c
    return torch.ops.qvlmem.decompress(best), best.method()


def described(x: Tensor) -> List[float]:
    c = torch.ops.qvlmem.compress(x, 'int8')
    moved = c.to(device=torch.device('cpu'))
    assert moved.shape() == list(x.shape) and moved.method() == 'int8'
    total = 0
    for part in c.parts():
        total += part.numel() * part.element_size()
    dense = torch.ops.qvlmem.compress(x, 'sparse').to_sparse_coo().to_dense()
    return [float(c.nbytes() - total), float(c.original_nbytes()), c.ratio(), c.relative_error(),
            c.worst_row_error(), c.max_element_error(), float(dense.norm())]


def framed(x: Tensor) -> Tensor:
    frames: List[Tensor] = []
    for row in x.unbind(0):
        frames.append(torch.ops.qvlmem.pack(torch.ops.qvlmem.compress(row, max_error=0.001)))
    return torch.stack([torch.ops.qvlmem.decompress(torch.ops.qvlmem.unpack(frame))
                        for frame in frames])


def swapped(a: torch.classes.qvlmem.CompressedTensor,
            b: torch.classes.qvlmem.CompressedTensor,
            flip: bool) -> torch.classes.qvlmem.CompressedTensor:
    """Objects as arguments and results, chosen by a branch."""
    if flip:
        return b
    return a


class CompressedLinear(torch.nn.Module):
    """A layer that holds its weight as a CompressedTensor and decodes it in forward."""

    def __init__(self, weight: Tensor, method: str):
        super().__init__()
        self.weight = torch.ops.qvlmem.compress(weight, method)
        self.bias = torch.nn.Parameter(torch.linspace(-1, 1, weight.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, torch.ops.qvlmem.decompress(self.weight), self.bias)

    @torch.jit.export
    def held(self) -> int:
        return self.weight.nbytes()


class QuantizedLinear(torch.nn.Module):
    """The same with plain tensors: what freezing may fold."""

    def __init__(self, weight: Tensor):
        super().__init__()
        q, scale, zero_point = torch.ops.qvlmem.quantize(weight, 8, True, 32)
        self.register_buffer('q', q)
        self.register_buffer('scale', scale)
        self.register_buffer('zero_point', zero_point)
        self.shape: List[int] = list(weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.ops.qvlmem.dequantize(self.q, self.scale, self.zero_point, self.shape, 8, 32)
        return torch.relu(x @ weight.t())


def alike(a, b):
    """Whether two results of programs are the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(alike(p, q) for p, q in zip(a, b, strict=True))
    return a == b


def programs():
    """(name, function, arguments) of each scripted function."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 72, generator=generator)
    sparse = torch.where(torch.rand(24, 72, generator=generator) < 0.6, torch.zeros_like(x), x)
    low_rank = x[:, :3] @ x[:3, :]
    return [
        ('quantized', quantized, (x, 8, True)),
        ('quantized_to_nibbles', quantized, (x.bfloat16(), 4, False)),
        ('quantized_by_keyword', quantized_by_keyword, (x,)),
        ('halved', halved, (x * 1e20,)),
        ('factored', factored, (low_rank, [2, 50])),
        ('sparsified', sparsified, (sparse, [0.5, 0.75])),
        ('exact', exact, (x.bfloat16(), 1)),
        ('exact_entropy_coded', exact, (torch.arange(1000).reshape(10, 100), 2)),
        ('profiled', profiled, (x,)),
        ('smallest', smallest, (x, ['fp16', 'int8', 'bounded', 'int4', 'lossless'], 0.01)),
        ('described', described, (sparse,)),
        ('framed', framed, (x,)),
    ]
