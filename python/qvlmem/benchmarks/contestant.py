# SPDX-License-Identifier: Apache-2.0
"""What the stopwatch knows of a codec, ours or another's. Used by two processes, so it imports neither's packages."""

import dataclasses
import time
from collections.abc import Callable


def when_gpu_is_done():
    """The wall clock, once all that was handed to the GPU is done."""
    import torch
    torch.cuda.synchronize()
    return time.perf_counter()


# cpu: of all threads of the process, for some packages work in one of their own; other programs disturb it less.
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time, 'gpu': when_gpu_is_done}


@dataclasses.dataclass(frozen=True)
class Contestant:
    """encode(x) gives what is kept; decode(kept, x) a tensor like x, of which it looks at shape and dtype alone.

    parts(kept): the values in it, where stored_bytes does not know its type.
    """

    name: str
    encode: Callable
    decode: Callable | None = None
    dtypes: tuple = ('float32',)
    bytes_at_most: float = float('inf')  # of x: a larger one is not measured
    parts: Callable = lambda kept: kept
    every_isa: bool = False  # measured with each of ours, not with the first alone


def stored_bytes(kept):
    """Bytes of the values in what an encoder returned: tensors, arrays, bytes, or tuples of them."""
    if isinstance(kept, (tuple, list)):
        return sum(map(stored_bytes, kept))
    if hasattr(kept, 'element_size'):
        return kept.numel() * kept.element_size()
    if isinstance(kept, (bytes, bytearray)):
        return len(kept)
    nbytes = getattr(kept, 'nbytes', 0)
    return nbytes() if callable(nbytes) else nbytes


def relative_error(x, y):
    """||x - y|| / ||x||, Frobenius, in float64; 0/0 is 0."""
    x, y = x.reshape(-1).double(), y.reshape(-1).double()
    norm = x.norm().item()
    return (x - y).norm().item() / norm if norm else 0.0


def seconds(function, calls, clock):
    """Seconds that `calls` calls take, without the release of the last result."""
    now = CLOCKS[clock]
    begin = now()
    for _ in range(calls):
        result = function()
    elapsed = now() - begin
    del result
    return elapsed
