# SPDX-License-Identifier: Apache-2.0
"""Decoder blocks as Qwen3-VL's text model has them, in a form that torch.jit.script takes: plain, and
with compression inside.

RMSNorm; attention with grouped queries, norms of queries and keys, and interleaved multi-dimensional
rotary positions (mRoPE); a SwiGLU feed-forward layer. test_decoder_block.py holds the plain block
against transformers' own.

The compressed form keeps every matrix as a CompressedTensor and decompresses it just before it is used,
keeps keys and values in a HierarchicalCache from step to step, and compresses the hidden states between
two blocks.
"""

import copy
import math
from typing import NamedTuple, Tuple

import torch
from torch import Tensor, nn


class Sizes(NamedTuple):
    hidden: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate: int
    sections: Tuple[int, int, int]  # frequencies that turn with time, height, width
    theta: float = 5e6


# Tails that no vector width divides (72 is Qwen3-VL's vision head), and the head of its text models.
ODD = Sizes(104, 4, 2, 72, 269, (12, 12, 12))
REAL = Sizes(256, 4, 1, 128, 400, (24, 20, 20))


class RMSNorm(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return self.weight * wide.to(x.dtype)


class Rotary(nn.Module):
    """The angles of interleaved mRoPE: frequencies take the positions in time, height and width by
    turns, as long as height and width have any left; the rest take time."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        half = sizes.head_dim // 2
        axis = torch.zeros(half, dtype=torch.long)
        axis[1:3 * sizes.sections[1]:3] = 1
        axis[2:3 * sizes.sections[2]:3] = 2
        self.register_buffer('axis', axis)
        exponent = torch.arange(0, sizes.head_dim, 2).float() / sizes.head_dim
        self.register_buffer('frequency', 1.0 / sizes.theta**exponent)

    def forward(self, positions: Tensor) -> Tuple[Tensor, Tensor]:
        """positions [3, batch, length] -> cosines and sines [batch, 1, length, head_dim], float32."""
        angle = positions[self.axis].permute(1, 2, 0).float() * self.frequency
        angle = torch.cat((angle, angle), -1).unsqueeze(1)
        return angle.cos(), angle.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), -1) * sin.to(x.dtype)


class PlainSteps(nn.Module):
    """Keys and values of all steps so far, as they are."""

    def __init__(self):
        super().__init__()
        self.keys = torch.empty(0)
        self.values = torch.empty(0)
        self.count = 0

    def forward(self, key: Tensor, value: Tensor) -> Tuple[Tensor, Tensor]:
        """Of this step -> of all steps, [batch, heads, length, head_dim]."""
        keys, values = [key], [value]
        if self.count > 0:
            keys, values = [self.keys, key], [self.values, value]
        self.keys, self.values = torch.cat(keys, 2), torch.cat(values, 2)
        self.count += 1
        return self.keys, self.values


class CachedSteps(nn.Module):
    """The same in a cache, one entry a step: what is stored once is never compressed again."""

    def __init__(self, cache, name: str):
        super().__init__()
        self.cache = cache
        self.name = name

    def forward(self, key: Tensor, value: Tensor) -> Tuple[Tensor, Tensor]:
        step = 0
        while self.cache.contains(f'{self.name} key {step}'):
            step += 1
        self.cache.put(f'{self.name} key {step}', key)
        self.cache.put(f'{self.name} value {step}', value)
        keys = [self.cache.get(f'{self.name} key {i}') for i in range(step + 1)]
        values = [self.cache.get(f'{self.name} value {i}') for i in range(step + 1)]
        return torch.cat(keys, 2), torch.cat(values, 2)


class HeldLinear(nn.Module):
    """A linear layer whose weight is a CompressedTensor."""

    def __init__(self, weight: Tensor, max_error: float):
        super().__init__()
        self.weight = torch.ops.qvlmem.compress(weight, max_error=max_error)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, torch.ops.qvlmem.decompress(self.weight))


class HandOver(nn.Module):
    """Hidden states that wait compressed for the next block."""

    def __init__(self, max_error: float):
        super().__init__()
        self.max_error = max_error

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.qvlmem.decompress(torch.ops.qvlmem.compress(x, max_error=self.max_error))


class Attention(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.head_dim = sizes.head_dim
        self.groups = sizes.heads // sizes.key_value_heads
        self.q_proj = nn.Linear(sizes.hidden, sizes.heads * sizes.head_dim, bias=False)
        self.k_proj = nn.Linear(sizes.hidden, sizes.key_value_heads * sizes.head_dim, bias=False)
        self.v_proj = nn.Linear(sizes.hidden, sizes.key_value_heads * sizes.head_dim, bias=False)
        self.o_proj = nn.Linear(sizes.heads * sizes.head_dim, sizes.hidden, bias=False)
        self.q_norm = RMSNorm(sizes.head_dim)
        self.k_norm = RMSNorm(sizes.head_dim)
        self.steps = PlainSteps()

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), -1, self.head_dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        query = rotated(self.q_norm(self.split(self.q_proj(x))).transpose(1, 2), cos, sin)
        key = rotated(self.k_norm(self.split(self.k_proj(x))).transpose(1, 2), cos, sin)
        value = self.split(self.v_proj(x)).transpose(1, 2)
        key, value = self.steps(key, value)
        key = key.repeat_interleave(self.groups, dim=1)
        value = value.repeat_interleave(self.groups, dim=1)
        scores = query.matmul(key.transpose(2, 3)) * self.head_dim**-0.5
        past = key.size(2) - x.size(1)
        hidden = torch.ones(x.size(1), key.size(2), dtype=torch.bool).triu(past + 1)
        scores = scores.masked_fill(hidden, -math.inf)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(x.dtype)
        return self.o_proj(weights.matmul(value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.gate_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.up_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.down_proj = nn.Linear(sizes.intermediate, sizes.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderBlock(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.self_attn = Attention(sizes)
        self.mlp = FeedForward(sizes)
        self.input_layernorm = RMSNorm(sizes.hidden)
        self.post_attention_layernorm = RMSNorm(sizes.hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Two blocks, run step by step: forward takes the hidden states [batch, length, hidden] of the
    tokens that are new, and their positions [3, batch, length]."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.rotary = Rotary(sizes)
        self.first = DecoderBlock(sizes)
        self.between = nn.Identity()
        self.second = DecoderBlock(sizes)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        cos, sin = self.rotary(positions)
        return self.second(self.between(self.first(x, cos, sin)), cos, sin)


class CompressedDecoder(Decoder):
    """With the cache in which keys and values lie. The parts are put in by `compressed`."""

    def __init__(self, sizes: Sizes, config: str):
        super().__init__(sizes)
        manager = torch.classes.qvlmem.CompressionManager(config)
        self.cache = torch.classes.qvlmem.HierarchicalCache(manager)

    @torch.jit.export
    def restart(self):
        self.cache.clear()


def plain(sizes: Sizes, dtype: torch.dtype, seed: int = 0) -> Decoder:
    """Seeded weights of a size at which signals keep theirs."""
    generator = torch.Generator().manual_seed(seed)
    decoder = Decoder(sizes).eval().requires_grad_(False)
    for parameter in decoder.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        value = noise / math.sqrt(parameter.shape[-1]) if parameter.dim() > 1 else 1 + 0.1 * noise
        parameter.data = value.to(dtype)
    return decoder


def fresh(decoder: Decoder) -> Decoder:
    """A plain decoder's copy, which has seen no step yet."""
    return copy.deepcopy(decoder)


def linear_names(decoder: Decoder):
    return [name for name, module in decoder.named_modules() if isinstance(module, nn.Linear)]


def compressed(decoder: Decoder, sizes: Sizes, max_error: float) -> CompressedDecoder:
    """A plain decoder's copy with compression inside."""
    held = CompressedDecoder(sizes, f'max_error:{max_error}').eval()
    held.load_state_dict(decoder.state_dict(), assign=True)
    for name in linear_names(held):
        held.set_submodule(name, HeldLinear(decoder.get_submodule(name).weight, max_error))
    held.first.self_attn.steps = CachedSteps(held.cache, 'first')
    held.between = HandOver(max_error)
    held.second.self_attn.steps = CachedSteps(held.cache, 'second')
    return held


class Noise:
    """Adds noise of a given size: what a codec with that error does, but for its pattern."""

    def __init__(self, size: float, seed: int):
        self.size = size
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=self.generator)
        return x + (noise * (self.size * x.float().norm() / noise.norm())).to(x.dtype)


class NoisySteps(PlainSteps):
    def __init__(self, noise: Noise):
        super().__init__()
        self.noise = noise

    def forward(self, key, value):
        return super().forward(self.noise(key), self.noise(value))


def noisy(decoder: Decoder, size: float, seed: int) -> Decoder:
    """A plain decoder's copy in which noise takes the place of each compression. Eager only."""
    noise = Noise(size, seed)
    copied = fresh(decoder)
    for name in linear_names(copied):
        weight = copied.get_submodule(name).weight
        weight.data = noise(weight.data)
    copied.first.self_attn.steps = NoisySteps(noise)
    copied.between.register_forward_hook(lambda module, arguments, x: noise(x))
    copied.second.self_attn.steps = NoisySteps(noise)
    return copied


def steps(sizes: Sizes, dtype: torch.dtype, lengths, batch: int = 1, seed: int = 1):
    """Inputs of one forward each: text first, then an image four patches wide, then text again."""
    generator = torch.Generator().manual_seed(seed)
    inputs, begin = [], 0
    for length in lengths:
        x = torch.randn(batch, length, sizes.hidden, generator=generator).to(dtype)
        time = torch.arange(begin, begin + length)
        patch = (time - 5).clamp(0, 16)
        positions = torch.stack((time - patch, time - patch + patch // 4, time - patch + patch % 4))
        inputs.append((x, positions.unsqueeze(1).expand(3, batch, length).contiguous()))
        begin += length
    return inputs


def run(decoder, inputs) -> Tensor:
    """The outputs of all steps, one after another along the length."""
    return torch.cat([decoder(x, positions) for x, positions in inputs], 1)


def relative_error(expected: Tensor, got: Tensor) -> float:
    expected, got = expected.double(), got.double()
    return float((expected - got).norm() / expected.norm())
