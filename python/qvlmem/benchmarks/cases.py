# SPDX-License-Identifier: Apache-2.0
"""The codecs that are measured, one row each: calls, values, bytes moved, stated errors, goals."""

import dataclasses
import functools
import math
from collections.abc import Callable

import torch

from qvlmem.benchmarks.contestant import relative_error
from qvlmem.benchmarks.rivals import BOUNDED_ALONE

MIB = 2**20
KIB = 2**10
FLOATS = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
COLUMNS = 4096
LARGEST_SVD = 2048


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure's limit, where a row has this dtype, number of threads and size, with reused memory."""

    figure: str  # one of the row's, or of DERIVED, or 'x ' and the name of a rival: our time over its
    at_most: float = math.inf
    at_least: float = 0.0
    dtype: str = 'float32'
    one_thread: bool = True
    sizes: tuple = (64 * MIB, 64 * MIB)

    def applies(self, dtype, threads, size):
        return (dtype == self.dtype and (threads == 1) == self.one_thread
                and self.sizes[0] <= size <= self.sizes[1])

    def value(self, row):
        """None where the row has nothing to tell it by."""
        if self.figure.startswith('x '):
            return row['rivals'].get(self.figure[2:], {}).get('ours_over_theirs')
        if self.figure in DERIVED:
            return DERIVED[self.figure](row)
        return row.get(self.figure)

    def met(self, value):
        return self.at_least <= value <= self.at_most

    def text(self, value):
        """The goal; with the value, where a table has no column of it."""
        sign, limit = ('<=', self.at_most) if self.at_most < math.inf else ('>=', self.at_least)
        figure = {'x_copy': '', 'gb_per_s': 'GB/s ', 'ms': 'ms ', 'ratio': 'ratio '}.get(
            self.figure, f'{self.figure}: {value:.3g} ')
        return f'{figure}{sign} {limit:.3g}'


def refusal(row):
    """What `auto` takes beyond the codec that it ends with, over a full decomposition: refusing svd, at most."""
    rivals = row['rivals']
    if not {BOUNDED_ALONE, 'torch.linalg.svd'} <= rivals.keys():
        return None
    return (row['x_copy'] - rivals[BOUNDED_ALONE]['x_copy']) / rivals['torch.linalg.svd']['x_copy']


DERIVED = {'refusal over torch.linalg.svd': refusal}


@dataclasses.dataclass(frozen=True)
class Codec:
    """encode(x) -> kept and decode(kept, x) -> y, as contestant.Contestant has them.

    rivals: the key under which rivals and peers have what does the same. values: a name of VALUES. reads: how
    often encoding reads the whole tensor, None where bytes are not what limits it. holds(x, kept, y): whether
    the error is what the operator states. figures(kept, x): what else a row is to have.
    """

    name: str
    rivals: str
    encode: Callable
    decode: Callable | None
    holds: Callable | None
    values: str = 'normal'
    reads: int | None = 1
    dtypes: tuple = tuple(FLOATS)
    encode_goals: tuple = ()
    decode_goals: tuple = ()
    figures: Callable = lambda kept, x: {}

    def goals(self, direction):
        return self.encode_goals if direction == 'encode' else self.decode_goals

    def moved_bytes(self, direction, dense, kept):
        """Bytes that the codec reads and writes at least, for a tensor of `dense` bytes kept in `kept`."""
        if self.reads is None:
            return None
        if self.decode is None:  # a sample
            return min(dense, 64 * KIB)
        return (self.reads if direction == 'encode' else 1) * dense + kept


# ---- Values: functions of (bytes, dtype, what files hold by the names of STORED) ----

def shape(size, dtype):
    count = size // dtype.itemsize
    columns = min(COLUMNS, max(1, count // 8))
    return torch.Size((count // columns, columns))


def normal(size, dtype, stored=None):
    return torch.randn(shape(size, dtype), generator=torch.Generator().manual_seed(0)).to(dtype)


def four_fifths_zero(size, dtype, stored=None):
    x = normal(size, dtype)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.8] = 0
    return x


def gaussian(size, dtype, stored=None):
    """As wide as weights are."""
    return normal(size, dtype) * 0.02


def from_file(name):
    """What a file holds, one tensor after another, as often as it takes."""
    def values(size, dtype, stored):
        count = shape(size, dtype).numel()
        return stored[name].repeat(-(-count // stored[name].numel()))[:count].to(dtype).view(shape(size, dtype))
    return values


def square(size):
    return min(LARGEST_SVD, math.isqrt(size // 4))


def falling_spectrum(size, dtype, stored=None):
    """Square, singular values exp(-i / 50); at most 2048 x 2048."""
    side, generator = square(size), torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(side, side, generator=generator)).Q for _ in range(2))
    return (u * torch.exp(-torch.arange(side) / 50) @ v).to(dtype)


def flat_spectrum(size, dtype, stored=None):
    """Square, independent normal values: no low rank; at most 2048 x 2048."""
    return torch.randn(square(size), square(size), generator=torch.Generator().manual_seed(0)).to(dtype)


# Values that a file holds, and the option that names it.
STORED = {'model': 'weights', 'hidden_states': 'activations', 'key_values': 'activations'}
VALUES = {f.__name__: f for f in (normal, four_fifths_zero, gaussian, falling_spectrum, flat_spectrum)}
VALUES |= {name: from_file(name) for name in STORED}


def rank_over_best(kept, x):
    """Beside the smallest rank that leaves falling_spectrum's values an error of 1 %."""
    energy = torch.exp(-torch.arange(min(x.shape), dtype=torch.float64) / 25).flip(0).cumsum(0).flip(0)
    return {'rank / best': kept[0].shape[1] / max(1, int((energy > 1e-4 * energy[0]).sum()))}


# ---- What operators state of their errors ----

def rounding(y):
    """What rounding to y's dtype may add to an element, at most."""
    return y.double().abs() * torch.finfo(y.dtype).eps


def half_a_step(group):
    def holds(x, kept, y):
        scale = kept[1].double()
        if group > 0:
            scale = scale.repeat_interleave(group, -1)[..., :x.shape[-1]]
        elif group < 0:
            scale = scale.unsqueeze(-1)
        return bool(((x.double() - y.double()).abs() <= scale / 2 * (1 + 2**-13) + rounding(y)).all())
    return holds


def half_precision(x, kept, y):
    bound = x.double().abs() * 2**-11 + kept[1].double() * 2**-25 + rounding(y)
    return bool(((x.double() - y.double()).abs() <= bound).all())


def exactly(x, kept, y):
    return torch.equal(x, y)


def within(limit):
    return lambda x, kept, y: relative_error(x, y) <= limit


# ---- The table ----

def quantized(name, rivals, bits, group, encode_goal, decode_goal, reads=1):
    ops = torch.ops.qvlmem
    small = Goal('x fresh outputs', at_most=2, sizes=(4 * KIB, 4 * KIB))
    return Codec(name, rivals, lambda x: ops.quantize(x, bits, True, group),
                 lambda kept, x: ops.dequantize(*kept, x.shape, bits, group, x.dtype), half_a_step(group),
                 reads=reads, encode_goals=(Goal('x_copy', at_most=encode_goal), small),
                 decode_goals=(Goal('x_copy', at_most=decode_goal),))


def lossless(level, values, entering, leaving, ratio):
    # Activations are of the dtype that models run in.
    dtypes = ('bfloat16',) if STORED.get(values) == 'activations' else tuple(FLOATS)
    goals = [Goal('gb_per_s', at_least=speed, dtype='bfloat16') for speed in (entering, leaving)]
    return Codec(f"lossless {level}, {values.replace('_', ' ')}", 'lossless',
                 lambda x: torch.ops.qvlmem.lossless_encode(x, level),
                 lambda kept, x: torch.ops.qvlmem.lossless_decode(kept, x.shape, x.dtype), exactly, values,
                 dtypes=dtypes, encode_goals=(goals[0], Goal('ratio', at_least=ratio, dtype='bfloat16')),
                 decode_goals=goals[1:])


@functools.cache
def manager(prefer):
    return torch.classes.qvlmem.CompressionManager(f'prefer:{prefer},max_error:0.01')


def bounded(form, prefer, values, reads):
    return Codec(f'bounded 1 %, {form}, {values}', 'bounded', lambda x: manager(prefer).compress_tensor(x, 'bounded'),
                 lambda kept, x: torch.ops.qvlmem.decompress(kept), within(0.01), values, reads=reads)


CODECS = (
    quantized('int8, per tensor', 'int8-tensor', 8, 0, 1.15, 0.61, reads=2),
    quantized('int8, per row', 'int8-row', 8, -1, 0.60, 0.61),
    quantized('int8, group 128', 'int8-128', 8, 128, 0.60, 0.61),
    quantized('int4, group 64', 'int4-64', 4, 64, 0.58, 0.58),
    quantized('int4, group 128', 'int4-128', 4, 128, 0.58, 0.58),
    Codec('fp16', 'fp16', lambda x: torch.ops.qvlmem.to_fp16(x),
          lambda kept, x: torch.ops.qvlmem.from_fp16(*kept, x.dtype), half_precision,
          encode_goals=(Goal('x_copy', at_most=0.80),), decode_goals=(Goal('x_copy', at_most=0.78),)),
    Codec('sparse, 80 % zeros', 'sparse', lambda x: torch.ops.qvlmem.sparsify(x),
          lambda kept, x: torch.ops.qvlmem.densify(*kept, x.shape), exactly, 'four_fifths_zero',
          encode_goals=(Goal('x_copy', at_most=0.90),), decode_goals=(Goal('x_copy', at_most=0.80),)),
    Codec('profile', 'profile', lambda x: torch.ops.qvlmem.profile_values(x), None, None,
          encode_goals=(Goal('x_copy', at_most=0.05), Goal('ms', at_most=0.1, sizes=(0, 16 * MIB - 1)))),
    *(lossless(1, values, 10, 12, ratio) for values, ratio in
      (('gaussian', 1.35), ('model', 1.35), ('hidden_states', 1.32), ('key_values', 1.32))),
    *(lossless(2, values, 2.5, 4, ratio) for values, ratio in
      (('gaussian', 1.50), ('model', 1.50), ('hidden_states', 1.47), ('key_values', 1.48))),
    # Finding the step is a look at the tensor, coding by entropy takes one more than packing.
    *(bounded(form, prefer, values, reads) for form, prefer, reads in (('packed', 'balanced', 2), ('coded', 'size', 3))
      for values in ('gaussian', 'model')),
    Codec('svd 1 %, exp(-i/50)', 'svd', lambda x: torch.ops.qvlmem.svd(x, True, 0.5, 0.9999),
          lambda kept, x: torch.ops.qvlmem.svd_reconstruct(*kept, x.shape, x.dtype), within(0.01 * (1 + 2**-13)),
          'falling_spectrum', reads=None, dtypes=('float32',), figures=rank_over_best, encode_goals=tuple(
              Goal(figure, at_most=limit, one_thread=False, sizes=(16 * MIB, 16 * MIB)) for figure, limit in
              (('x torch.linalg.svd', 1 / 12), ('x torch.svd_lowrank by doubling', 1 / 3), ('rank / best', 1.05)))),
    Codec('auto, no low rank', 'full-rank', lambda x: torch.ops.qvlmem.compress(x, 'auto', max_error=0.01),
          lambda kept, x: torch.ops.qvlmem.decompress(kept), within(0.01), 'flat_spectrum', reads=None,
          dtypes=('float32',), encode_goals=(Goal('refusal over torch.linalg.svd', at_most=0.02, one_thread=False,
                                                  sizes=(16 * MIB, 16 * MIB)),)),
)
