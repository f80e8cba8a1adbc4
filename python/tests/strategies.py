# SPDX-License-Identifier: Apache-2.0
"""What the tests share: Hypothesis strategies for tensors, and measurements independent of qvlmem.

A drawn tensor is made of independent choices: dtype, shape, kind of values, memory layout, and,
where asked for, values that are not finite. The choices are small, so that a failure shrinks.
"""

import math

import hypothesis
import hypothesis.strategies as st
import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# Every dtype that is not quantized: what the lossless pair takes.
ALL_DTYPES = FLOATS + (
    torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
    torch.complex64, torch.complex128, torch.complex32, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu) + tuple(
        getattr(torch, name) for name in ('float4_e2m1fn_x2', 'bcomplex32') if hasattr(torch, name))
# What no lossy codec takes (float64 excepted, which to_fp16 takes).
EXACT_DTYPES = tuple(d for d in ALL_DTYPES if d not in FLOATS)

# 4304 and 72 are Qwen3-VL's; 31, 33 and 129 leave a tail after every vector and group size in use.
TAILS = (1, 2, 3, 7, 8, 16, 31, 32, 33, 64, 72, 127, 128, 129, 255, 257, 1024, 4304)
SHAPES = ((), (0,), (1,), (0, 5), (5, 0), (2, 0, 3), (1, 1), (1, 1, 1, 1), (3, 5), (7, 1), (1, 7),
          (2, 3, 4), (2, 1, 3, 5), (5, 129), (3, 4304), (4, 72), (31,), (129, 31), (64, 128))
KINDS = ('normal', 'zeros', 'constant', 'uniform', 'positive', 'negative', 'sparse', 'outliers',
         'huge', 'subnormal', 'wide', 'integers', 'signed_zeros', 'low_rank', 'mean')
LAYOUTS = ('contiguous', 'offset', 'transposed', 'permuted', 'strided', 'narrowed', 'expanded',
           'expanded_last', 'broadcast')
QUIET_NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY = math.nan, math.inf, -math.inf


def shapes(max_dims=4, max_numel=20000):
    """Shapes with 0-d, empty, one-element and awkward ones."""
    def bounded(shape):
        return math.prod(shape) <= max_numel
    fixed = st.sampled_from([s for s in SHAPES if len(s) <= max_dims and bounded(s)])
    tail = st.tuples(st.lists(st.integers(1, 4), max_size=max_dims - 1),
                     st.sampled_from(TAILS)).map(lambda t: (*t[0], t[1])).filter(bounded)
    free = st.lists(st.integers(0, 9), max_size=max_dims).map(tuple).filter(bounded)
    return st.one_of(fixed, tail, free)


def values(kind, shape, dtype, seed=0, exponent=0):
    """A contiguous finite tensor of a real floating dtype; 2**exponent scales the tame kinds."""
    generator = torch.Generator().manual_seed(seed)
    info = torch.finfo(dtype)
    count = math.prod(shape)
    normal = torch.randn(count, generator=generator, dtype=torch.float64)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    scale = 2.0**exponent
    if kind == 'zeros':
        x = torch.zeros(count, dtype=torch.float64)
    elif kind == 'constant':
        x = torch.full((count,), 1.3, dtype=torch.float64) * scale
    elif kind == 'normal':
        x = normal * scale
    elif kind == 'mean':
        x = (normal + 100) * scale
    elif kind == 'uniform':
        x = (2 * uniform - 1) * scale
    elif kind == 'positive':
        x = (uniform + 0.25) * scale
    elif kind == 'negative':
        x = -(uniform + 0.25) * scale
    elif kind == 'sparse':
        x = torch.where(uniform < 0.7, 0.0, normal) * scale
    elif kind == 'outliers':
        x = torch.where(uniform < 0.01, 300 * normal, normal) * scale
    elif kind == 'huge':
        x = (2 * uniform - 1) * info.max
        if count:
            x[0], x[-1] = -info.max, info.max
    elif kind == 'subnormal':
        x = (2 * uniform - 1) * info.tiny
    elif kind == 'wide':  # every exponent of the dtype
        low, high = math.log2(info.smallest_normal) - 5, math.log2(info.max)
        x = torch.sign(normal) * torch.exp2(low + (high - low) * uniform)
    elif kind == 'integers':
        x = torch.round(normal * 3)
    elif kind == 'signed_zeros':
        x = torch.where(uniform < 0.5, 0.0, -0.0)
        x = torch.where(uniform > 0.9, normal, x)
    elif kind == 'low_rank':
        columns = shape[-1] if shape else 1
        rows = count // columns if columns else 0
        rank = max(1, min(rows, columns) // 8)
        left = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
        right = torch.randn(rank, columns, generator=generator, dtype=torch.float64)
        x = (left @ right).reshape(-1) * scale
    else:
        raise ValueError(kind)
    return x.clamp(-info.max, info.max).to(dtype).reshape(shape)


def laid_out(x, layout):
    """A tensor of x's shape, dtype and (but for the expanded ones) values, in another layout."""
    if layout == 'offset':  # and not aligned to more than one element
        return torch.cat([x.new_zeros(3), x.reshape(-1)])[3:].view(x.shape)
    if x.dim() == 0:
        return x
    if layout == 'transposed':
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == 'permuted':  # reversed memory order
        order = tuple(reversed(range(x.dim())))
        return x.permute(order).contiguous().permute(order)
    if layout == 'strided':
        return torch.stack([x, torch.zeros_like(x)], dim=-1)[..., 0]
    if layout == 'narrowed':
        padding = x.new_zeros((*x.shape[:-1], 3))
        return torch.cat([padding[..., :1], x, padding], dim=-1)[..., 1:x.shape[-1] + 1]
    if layout == 'expanded' and x.shape[0]:
        return x[:1].expand(x.shape)
    if layout == 'expanded_last' and x.shape[-1]:
        return x[..., :1].expand(x.shape)
    if layout == 'broadcast' and x.numel():
        return x.reshape(-1)[0].expand(x.shape)
    return x


def describe(x):
    return (f'{x.dtype} shape {list(x.shape)} strides {list(x.stride())} '
            f'offset {x.storage_offset()}')


@st.composite
def tensors(draw, dtypes=FLOATS, shape=None, kinds=KINDS, layouts=LAYOUTS, nonfinite=False):
    """Floating tensors. `shape`: a strategy or one shape; nonfinite: may hold NaN and infinities."""
    dtype = draw(st.sampled_from(dtypes))
    size = shapes() if shape is None else shape
    size = draw(size) if isinstance(size, st.SearchStrategy) else tuple(size)
    kind = draw(st.sampled_from(kinds))
    exponent = draw(st.sampled_from((0, -10, 10, -3, 3)))
    x = values(kind, size, dtype, draw(st.integers(0, 5)), exponent)
    special = []
    if nonfinite and x.numel():
        special = draw(st.lists(
            st.tuples(st.integers(0, x.numel() - 1),
                      st.sampled_from((QUIET_NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY))),
            max_size=4))
        for position, value in special:
            x.view(-1)[position] = value
    x = laid_out(x, draw(st.sampled_from(layouts)))
    hypothesis.note(f'{describe(x)} {kind} 2**{exponent} {special}')
    return x


@st.composite
def any_tensors(draw, dtypes=ALL_DTYPES, shape=None, layouts=LAYOUTS):
    """Tensors of any dtype: random bits (NaNs of every payload included), few values, constants."""
    dtype = draw(st.sampled_from(dtypes))
    size = shapes() if shape is None else shape
    size = draw(size) if isinstance(size, st.SearchStrategy) else tuple(size)
    pattern = draw(st.sampled_from(('random', 'few', 'constant', 'zeros', 'ones')))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 5)))
    count = math.prod(size)
    if dtype is torch.bool:
        x = torch.randint(0, 2, (count,), generator=generator).to(torch.bool)
    else:
        bits = torch.randint(0, 256, (count * dtype.itemsize,), generator=generator,
                             dtype=torch.uint8)
        if pattern == 'few':
            bits &= 3
        if pattern == 'ones':
            bits.fill_(255)
        x = bits.view(dtype)
    if pattern == 'constant' and count:
        x = x[:1].repeat(count)
    if pattern == 'zeros':
        x = zero_bits((count,), dtype)
    x = laid_out_bits(x.reshape(size), draw(st.sampled_from(layouts)))
    hypothesis.note(f'{describe(x)} {pattern}')
    return x


def laid_out_bits(x, layout):
    """laid_out for dtypes that torch.cat and stack may not take: by way of integers of that size."""
    carriers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64,
                16: torch.complex128}
    return laid_out(x.view(carriers[x.dtype.itemsize]), layout).view(x.dtype)


def raw_bytes(x):
    """x's values in logical order as a flat uint8 tensor."""
    if x.dtype.itemsize == 1:  # PyTorch cannot copy all of these
        x = x.view(torch.uint8)
    flat = x.resolve_conj().resolve_neg().reshape(-1)
    return flat.clone(memory_format=torch.contiguous_format).view(torch.uint8)


def zero_bits(shape, dtype):
    """A tensor of zero bytes, also of a dtype that PyTorch cannot fill or convert to."""
    return torch.zeros(math.prod(shape) * dtype.itemsize, dtype=torch.uint8).view(dtype).reshape(shape)


def same_bits(x, y):
    """Whether shape, dtype and every bit agree, NaN payloads and the signs of zeros included."""
    return (x.shape == y.shape and x.dtype == y.dtype and torch.equal(raw_bytes(x), raw_bytes(y)))


def as_rows(x):
    """x as a matrix [prod(leading), last]; a 0-d tensor is one row of one."""
    if x.dim() == 0:
        return x.reshape(1, 1)
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _ratio(numerator, denominator):
    """numerator / denominator elementwise, where 0/0 counts as 0."""
    return torch.where(numerator == 0, torch.zeros_like(numerator), numerator / denominator)


def _scaled_pair(x, y):
    """Both as float64 over x's largest magnitude, so that no square over- or underflows."""
    x, y = x.detach().to(torch.float64), y.detach().to(torch.float64)
    largest = x.abs().max() if x.numel() else x.new_zeros(())
    return (x / largest, y / largest) if largest > 0 else (x, y)


def tensor_error(x, y):
    """||x - y|| / ||x||, Frobenius."""
    x, y = _scaled_pair(x, y)
    return float(_ratio((x - y).norm(), x.norm()))


def row_error(x, y):
    """The largest ||x - y|| / ||x|| of the rows, each scaled by its own largest magnitude."""
    x, y = as_rows(x.detach().to(torch.float64)), as_rows(y.detach().to(torch.float64))
    if x.numel() == 0:
        return 0.0
    largest = x.abs().amax(dim=1, keepdim=True)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    x, y = x / largest, y / largest
    return float(_ratio((x - y).norm(dim=1), x.norm(dim=1)).max())


def element_error(x, y):
    """max |x - y| / max |x|."""
    x, y = _scaled_pair(x, y)
    if x.numel() == 0:
        return 0.0
    return float(_ratio((x - y).abs().max(), x.abs().max()))


ERRORS = {'tensor': tensor_error, 'row': row_error, 'element': element_error}
