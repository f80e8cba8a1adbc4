# SPDX-License-Identifier: Apache-2.0
"""Measures under one condition: the environment that this process was started with.

Reads its settings from standard input; writes {"note": text} and {"row": figures}, one JSON document a line.
"""

import contextlib
import functools
import json
import mmap
import os
import pathlib
import sys

import torch

import qvlmem  # noqa: F401  (loads the library)
from qvlmem.benchmarks.cases import CODECS, FLOATS, STORED, VALUES
from qvlmem.benchmarks.contestant import relative_error, seconds, stored_bytes
from qvlmem.benchmarks.peer_process import PeerFailed, PeerProcess
from qvlmem.benchmarks.rivals import RIVALS
from qvlmem.benchmarks.rounds import race, summary

MAPPED_BYTES = 128 << 10  # M_MMAP_THRESHOLD of mallopt(3)
CLOCKED_ALWAYS = ('copy', 'ours', 'touch')  # the others are guests


def say(**document):
    print(json.dumps(document), file=sys.stdout, flush=True)


def stored_values(settings):
    """{name of STORED: values, flat}. Of weights the matrices one after another, but for embeddings."""
    from safetensors.torch import load_file
    stored = {}
    if settings['weights']:
        tensors = load_file(settings['weights'])
        stored['model'] = torch.cat([tensors[name].reshape(-1).float() for name in sorted(tensors)
                                     if tensors[name].dim() == 2 and 'embed' not in name])
    if settings['activations']:
        stored |= {name: values.reshape(-1) for name, values in load_file(settings['activations']).items()}
    return stored


def planned(settings):
    """(dtype name, size, codec) of every case. svd's matrices have a largest size: each but once."""
    for dtype in settings['dtypes']:
        for codec in CODECS:
            if dtype not in codec.dtypes or (codec.values in STORED and not settings[STORED[codec.values]]):
                continue
            square = codec.values.endswith('spectrum')
            sizes = sorted({min(size, 16 << 20) for size in settings['sizes']} if square else settings['sizes'])
            for size in sizes:
                yield dtype, size, codec


def row_count(settings):
    return len(settings['threads']) * sum(len(directions(codec)) for *_, codec in planned(settings))


def directions(codec):
    return ('encode', 'decode') if codec.decode else ('encode',)


def fresh(nbytes, device):
    """Bytes that nobody has touched. Once large blocks were freed, torch.empty may find some in glibc's heap, which
    takes a tenth of the time that mapping them takes."""
    if device.type == 'cpu' and nbytes >= MAPPED_BYTES:
        return torch.frombuffer(mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.uint8)
    return torch.empty(nbytes, dtype=torch.uint8, device=device)


class Case:
    """One codec on one tensor."""

    def __init__(self, codec, x, settings, peers):
        self.codec, self.x, self.settings, self.peers = codec, x, settings, peers
        self.kept = codec.encode(x)
        y = codec.decode(self.kept, x) if codec.decode else None
        self.kept_bytes = stored_bytes(self.kept)
        self.error = relative_error(x, y) if codec.decode else 0.0
        self.holds = codec.holds(x, self.kept, y) if codec.holds else True
        # A copy of as many bytes, in float32 whatever x is.
        self.source = torch.zeros(max(1, x.nbytes // 4), device=x.device)
        self.target = torch.zeros_like(self.source)
        dtype = str(x.dtype).removeprefix('torch.')
        self.rivals = {rival.name: rival for rival in RIVALS[codec.rivals]
                       if dtype in rival.dtypes and x.nbytes <= rival.bytes_at_most
                       and (settings['first_isa'] or rival.every_isa)}
        self.rivals_kept = {name: rival.encode(x) for name, rival in self.rivals.items()}
        self.theirs = {name: (stored_bytes(rival.parts(self.rivals_kept[name])),
                              relative_error(x, rival.decode(self.rivals_kept[name], x)) if rival.decode else None)
                       for name, rival in self.rivals.items()}
        self.open_peers(dtype)

    def open_peers(self, dtype):
        names = self.peers.names.get(self.codec.rivals, {}) if self.peers else {}
        self.peer_names = []
        for name in [name for name, dtypes in names.items() if dtype in dtypes]:
            try:
                self.theirs[name] = self.peers.open(self.codec.rivals, name)
                self.peer_names.append(name)
            except PeerFailed as error:
                say(note=f'{name} on {self.codec.name}, {dtype}: {error}')

    def timers(self, direction):
        """{name: function of a number of calls}: the copy, ours, what fresh outputs take, and the others."""
        clock, x = self.settings['clock'], self.x

        def local(call):
            return functools.partial(self.time, call, clock)

        if direction == 'encode':
            ours = functools.partial(self.codec.encode, x)
            outputs = self.kept_bytes
        else:
            ours = functools.partial(self.codec.decode, self.kept, x)
            outputs = x.nbytes
        timers = {'copy': local(lambda: self.target.copy_(self.source)), 'ours': local(ours),
                  'touch': local(lambda: fresh(outputs, x.device).zero_())}
        for name, rival in self.rivals.items():
            if direction == 'encode':
                timers[name] = local(functools.partial(rival.encode, x))
            elif rival.decode:
                timers[name] = local(functools.partial(rival.decode, self.rivals_kept[name], x))
        for name in self.peer_names:
            timers[name] = functools.partial(self.peers.seconds, name, direction, clock)
        return timers

    @staticmethod
    def time(call, clock, calls):
        return seconds(call, calls, clock)

    def row(self, direction):
        """Measures with as many threads as PyTorch has now."""
        x, timers = self.x, self.timers(direction)
        samples = race(timers, self.settings['repeats'], guests=timers.keys() - set(CLOCKED_ALWAYS))
        ours, spread = summary(samples['ours'])
        copy = summary(samples['copy'])[0]
        x_copy, x_copy_spread = summary(samples['ours'], of=samples['copy'])
        moved = self.codec.moved_bytes(direction, x.nbytes, self.kept_bytes)
        row = {
            'case': self.codec.name, 'direction': direction, 'threads': torch.get_num_threads(),
            'dtype': str(x.dtype).removeprefix('torch.'), 'bytes': x.nbytes, 'shape': list(x.shape),
            'ms': 1e3 * ours, 'spread': spread, 'gb_per_s': x.nbytes / ours / 1e9, 'copy_ms': 1e3 * copy,
            'touch_ms': 1e3 * summary(samples['touch'])[0], 'x_copy': x_copy, 'x_copy_spread': x_copy_spread,
            'moved_bytes': moved, 'x_copy_limit': None if moved is None else moved / (2 * x.nbytes),
            'ratio': x.nbytes / self.kept_bytes if self.codec.decode else None, 'error': self.error, 'error_as_stated': self.holds,
            'rivals': {},
        }
        if direction == 'encode':
            row |= self.codec.figures(self.kept, x)
        for name, (kept, error) in self.theirs.items():
            if name not in samples:
                continue
            row['rivals'][name] = {
                'ms': 1e3 * summary(samples[name])[0], 'ours_over_theirs': summary(samples['ours'], of=samples[name])[0],
                'x_copy': summary(samples[name], of=samples['copy'])[0],
                'ratio': x.nbytes / kept if kept else None, 'error': error}
        return row


def measure(settings, peers):
    stored = stored_values(settings)
    for dtype, size, codec in planned(settings):
        torch.set_num_threads(max(settings['threads']))
        x = VALUES[codec.values](size, FLOATS[dtype], stored).to(settings['device'])
        if peers and codec.rivals in peers.names:
            peers.load(x)
        case = Case(codec, x, settings, peers)
        for threads in settings['threads']:
            torch.set_num_threads(threads)
            for direction in directions(codec):
                say(row=case.row(direction))


def main():
    settings = json.load(sys.stdin)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    with contextlib.ExitStack() as stack:
        peers = None
        if settings['peers'] and settings['first_isa']:
            try:
                peers = stack.enter_context(PeerProcess(pathlib.Path(settings['peers'])))
                for name, reason in peers.missing.items():
                    say(note=f'{name} is not measured: {reason}')
            except (OSError, PeerFailed) as error:
                say(note=f"no peers measured: {settings['peers']}: {error}")
        measure(settings, peers)


if __name__ == '__main__':
    # Answers go to a private copy: what libraries print must not mix with them.
    sys.stdout = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    main()
