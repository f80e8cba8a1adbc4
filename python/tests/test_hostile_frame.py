# SPDX-License-Identifier: Apache-2.0
"""Frames edited byte by byte and word by word, with a checksum that fits, in a process of limited memory.

test_frame_tool.py edits what a header means; here nothing is assumed of the layout but where the
checksum lies. Each frame is either refused with one of the library's own errors or decodes to the
shape and dtype that it says. It is another process, so that a crash does not end the tests.
"""

import os
import pathlib
import struct
import subprocess
import sys
import textwrap

import pytest
import torch

from strategies import values

TOOL = pathlib.Path(__file__).resolve().parents[2] / 'tools' / 'frame'
CASES = [('none', torch.float32, (3, 5)), ('none', torch.int64, ()), ('int8', torch.float32, (3, 5)),
         ('int8', torch.float16, (2, 3, 7)), ('int4', torch.bfloat16, (3, 5)),
         ('fp16', torch.float64, (3, 5)), ('bounded', torch.float32, (4, 33)),
         ('svd', torch.float32, (6, 5)), ('sparse', torch.float16, (3, 40)),
         ('sparse', torch.float32, (0, 5)), ('lossless', torch.bfloat16, (4, 33)),
         ('lossless', torch.bool, (40,)), ('lossless', torch.complex64, (5, 3))]
CASE_IDS = [f'{m}-{str(d)[6:]}-{"x".join(map(str, s)) or "scalar"}' for m, d, s in CASES]
WORDS = (0, 1, 2, 5, 8, 2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**60, 2**61 + 1, 2**62, 2**63 - 1,
         -1, -2, -2**31, -2**63)
CHECKSUM = range(24, 32)  # where it lies in a frame: docs/format.md

READER = '''
    import pathlib, resource, sys, torch
    library, folder, device = sys.argv[1:]
    torch.ops.load_library(library)
    ops = torch.ops.qvlmem
    if device == 'cpu':  # CUDA maps more addresses than any limit
        used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
    accepted = 0
    for path in sorted(pathlib.Path(folder).iterdir()):
        print('reading', path.name, flush=True)
        data = bytearray(path.read_bytes())
        frame = torch.frombuffer(data, dtype=torch.uint8)
        try:
            c = ops.unpack(frame, torch.device(device))
            assert c.nbytes() <= frame.numel(), f'{c.nbytes()} bytes out of {frame.numel()}'
            if 0 <= c.original_nbytes() < 1 << 26:
                y = ops.decompress(c)
                z, = ops.decompress_frames([frame])
                assert y.shape == z.shape and y.dtype == z.dtype and y.device.type == device
                assert list(y.shape) == c.shape() and y.is_contiguous()
                assert y.nbytes == c.original_nbytes()
                y.reshape(-1).view(torch.uint8).sum()
                ops.pack(c)
                accepted += 1
        except (ValueError, TypeError, RuntimeError) as error:
            if not str(error).startswith('qvlmem::') or 'INTERNAL ASSERT' in str(error):
                print('FAILED', path.name, type(error).__name__, str(error)[:300], flush=True)
        except AssertionError as error:
            print('FAILED', path.name, error, flush=True)
    print('accepted', accepted)
'''


def make_frame(ops, method, dtype, shape):
    x = values('sparse', shape, torch.float32)
    x = x.to(dtype) if dtype.is_floating_point or dtype.is_complex else (x * 3).to(dtype)
    return bytearray(ops.pack(ops.compress(x, method)).numpy().tobytes())


def edited(frame):
    """(name, bytes) of edits: every header byte, every word of eight as a size, every payload byte."""
    header = min(struct.unpack_from('<I', frame, 12)[0], len(frame))
    for position in (p for p in range(len(frame)) if p not in CHECKSUM):
        choices = (0, 1, 127, 255, frame[position] ^ 1, frame[position] ^ 0x80)
        for choice in set(choices if position < header else choices[3:]):
            if choice != frame[position]:
                changed = bytearray(frame)
                changed[position] = choice
                yield f'byte{position}={choice}', changed
    for position in (p for p in range(0, header - 7, 8) if p not in CHECKSUM):
        old = struct.unpack_from('<q', frame, position)[0]
        near = {(old + d + 2**63) % 2**64 - 2**63 for d in (-64, -8, -1, 1, 8, 64, old)}
        for choice in near.union(WORDS) - {old}:
            changed = bytearray(frame)
            struct.pack_into('<q', changed, position, choice)
            yield f'word{position}={choice}', changed
    for length in range(8, len(frame), 8):  # shorter and longer, the size in the header kept or not
        yield f'cut{length}', frame[:length]
        yield f'longer{length}', frame + bytearray(length)


def resealed(folder, frames):
    """Writes frames into the folder with checksums that fit; what cannot have one stays as it is."""
    folder.mkdir()
    names = []
    for name, frame in frames:
        (folder / name).write_bytes(frame)
        if len(frame) >= 56 and frame[:4] == b'QVLM':
            names.append(name)
    if names:
        result = subprocess.run([TOOL, 'reseal', *names], cwd=folder, capture_output=True, text=True,
                                check=False)
        assert result.returncode == 0, result.stderr[-1000:]
    return folder


def read_all(library, folder, device):
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(READER), library, str(folder), device],
                            capture_output=True, text=True, timeout=300, check=False, env=environment)
    lines = result.stdout.splitlines()
    last = lines[-1] if lines else 'nothing'
    assert result.returncode == 0, f'the reader died of {result.returncode} at: {last}\n{result.stderr[-2000:]}'
    failed = [line for line in lines if line.startswith('FAILED')]
    assert not failed, f'{len(failed)} of {len(lines)} frames:\n' + '\n'.join(failed[:20])
    return int(last.split()[1])


@pytest.mark.each_device
def test_edited_frames_are_refused_or_decoded(device, library_path, tmp_path):
    frames = [(f'{name}-{edit}', changed)
              for name, case in zip(CASE_IDS, CASES, strict=True)
              for edit, changed in edited(make_frame(torch.ops.qvlmem, *case))]
    folder = resealed(tmp_path / 'frames', frames)
    assert read_all(library_path, folder, device) > 0, 'no edit passed: was any resealed?'
