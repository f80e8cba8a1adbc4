# SPDX-License-Identifier: Apache-2.0
"""No op takes more memory than its outputs and 1 MiB a thread, whatever the size of its input."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

# In a process of its own, in which large blocks come from the system and go back to it: no free memory hides what an
# op takes. Each op runs twice, for what is loaded and reserved once and kept. Prints a JSON line for each.
MEASURE = textwrap.dedent('''
    import json, pathlib, re, sys
    import torch
    import qvlmem

    ops, threads = torch.ops.qvlmem, int(sys.argv[1])
    torch.set_num_threads(threads)
    torch.manual_seed(0)

    def memory(name):
        status = pathlib.Path('/proc/self/status').read_text()
        return int(re.search(rf'^{name}:\\s+(\\d+) kB', status, re.MULTILINE).group(1)) << 10

    def outputs_bytes(y):
        if isinstance(y, torch.Tensor):
            return y.untyped_storage().nbytes()
        return sum(map(outputs_bytes, y)) if isinstance(y, tuple) else 0 if isinstance(y, int) else y.nbytes()

    def report(name, f):
        f()
        pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is now what is resident
        before = memory('VmHWM')
        y = f()
        taken = memory('VmHWM') - before
        print(json.dumps([name, taken - outputs_bytes(y)]), flush=True)
        return y

    def report_all(x, kind):
        def pair(name, encode, decode):
            encoded = report(f'{kind} {name}, encode', encode)
            report(f'{kind} {name}, decode', lambda: decode(encoded))

        for bits in 8, 4:
            for group in 0, -1, 128:
                for symmetric in True, False:
                    pair(f'{bits} bits, group {group}, symmetric {symmetric}',
                         lambda: ops.quantize(x, bits, symmetric, group),
                         lambda parts: ops.dequantize(*parts, x.shape, bits, group, x.dtype))
        pair('fp16', lambda: ops.to_fp16(x), lambda parts: ops.from_fp16(*parts, x.dtype))
        for level in 1, 2:
            pair(f'lossless {level}', lambda: ops.lossless_encode(x, level),
                 lambda parts: ops.lossless_decode(parts, x.shape, x.dtype))
        for prefer in 'speed', 'size':
            for bound in 'tensor', 'row', 'element':
                manager = torch.classes.qvlmem.CompressionManager(f'prefer:{prefer},bound:{bound}')
                pair(f'bounded {prefer} {bound}', lambda: manager.compress_tensor(x, 'bounded'), ops.decompress)
        for method in 'none', 'lossless', 'int8', 'int4', 'fp16', 'sparse':
            pair(f'compress {method}', lambda: ops.compress(x, method), ops.decompress)
        report(f'{kind} profile', lambda: ops.profile_values(x))
        x[torch.rand(x.shape) < 0.8] = 0
        pair('sparse, 80 % zeros', lambda: ops.sparsify(x), lambda parts: ops.densify(*parts, x.shape))
        pair('sparse, pruned', lambda: ops.sparsify(x, 0.9), lambda parts: ops.densify(*parts, x.shape))

    report('control', lambda: torch.empty(4 << 20, dtype=torch.uint8).fill_(1).numel())
    report_all(torch.randn(4096, 4096) * 0.02, 'float32')
    report_all((torch.randn(4096, 8192) * 0.02).bfloat16(), 'bfloat16')
    report_all(torch.randn(16 << 20) * 0.02, 'one row')
''')
MIB = 1 << 20


@pytest.mark.skipif(not os.access('/proc/self/clear_refs', os.W_OK), reason='the kernel does not forget peaks')
@pytest.mark.parametrize('threads', [1, 2])
def test_no_op_takes_a_mebibyte_a_thread_beyond_its_outputs(threads):
    environment = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': str(64 << 10), 'MALLOC_TRIM_THRESHOLD_': '0'}
    done = subprocess.run([sys.executable, '-c', MEASURE, str(threads)], env=environment, text=True, check=True,
                          stdout=subprocess.PIPE, timeout=600)
    taken = dict(map(json.loads, done.stdout.splitlines()))
    assert taken.pop('control') >= 7 * MIB / 2  # what is taken for a moment is seen
    assert len(taken) > 100
    too_much = {name: bytes / MIB for name, bytes in taken.items() if bytes > threads * MIB}
    assert not too_much
