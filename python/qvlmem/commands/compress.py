# SPDX-License-Identifier: Apache-2.0
"""Writes the tensors of a file anew, compressed: every bit kept, or within an error that you name.

FILE is a safetensors file, or one that this command or qvlmem.save wrote. qvlmem.load opens the result from
Python. For example:

  python -m qvlmem compress model.safetensors                    # writes model.qvlm, every bit kept
  python -m qvlmem compress model.safetensors --max-error 0.01   # every row within 1 % of its norm
  python -m qvlmem compress model.safetensors --prefer size -o small.qvlm

Integers and booleans keep every bit in any case; what FILE holds as CompressedTensors stays as it is. Names,
their order and metadata stay, too.
"""

import collections
import os
import time

import torch

from qvlmem import files
from qvlmem.commands import file_command, terminal
from qvlmem.commands.run import bounded

SUMMARY = 'safetensors in, frames out'
METHODS = ('auto', 'none', 'lossless', 'fp16', 'int8', 'int4', 'bounded', 'svd', 'sparse')
SUFFIX = '.qvlm'
ERRORS = {'tensor': 'relative_error', 'row': 'worst_row_error', 'element': 'max_element_error'}


def add_arguments(parser):
    file_command.add_arguments(parser, 'a safetensors file, or one of frames', SUFFIX)
    parser.add_argument('--method', choices=METHODS, default='auto', metavar='M',
                        help=f'one of {", ".join(METHODS)} (default: auto)')
    parser.add_argument('--max-error', metavar='E', default=0.0,
                        type=bounded(float, 0, 1, 'a number from 0 (bit-exact) to below 1'),
                        help='the relative error that auto and bounded may leave (default: 0, bit-exact)')
    parser.add_argument('--bound', choices=ERRORS, default='row',
                        help='what --max-error holds for: the norm of each tensor, of each of its rows (default), '
                        'or each element against the largest')
    parser.add_argument('--prefer', choices=('balanced', 'size', 'speed'), default='balanced',
                        help='what auto and lossless go by: loading at memory speed (balanced, the default), the '
                        'smallest file, or the first method that saves anything')
    parser.add_argument('--json', action='store_true', help='print one JSON document')


def main(options, parser):
    with file_command.failures_in_one_line():
        report = compress(options, file_command.output_path(options, SUFFIX))
    if options.json:
        terminal.print_json(report)
    else:
        codecs = ', '.join(f'{method} {count}' for method, count in report['codecs'].items())
        error = f"worst {report['bound']} error {report['worst_error']:.3g}" if report['worst_error'] else 'exact'
        file_command.print_written(report, f" ({codecs}), {error}, ratio {report['ratio']:.2f}" if codecs else '')
    return 0


def compress(options, output):
    """Does it, and returns the figures as plain data."""
    began = time.perf_counter()
    shrink = files.compressor(options.method, options.max_error, options.bound, options.prefer)
    codecs, before, worst = collections.Counter(), 0, 0.0
    with files.open_file(options.file) as source, files.replacing(output) as file:
        writer = files.FrameFileWriter(file, source.metadata)
        with terminal.one_step('compressing', len(source.items)) as advance:
            for number, value in enumerate(source.values()):
                compressed = value
                if isinstance(value, torch.Tensor):
                    try:
                        compressed = shrink(value)
                    except (ValueError, TypeError) as error:
                        raise ValueError(f'{source.path}: {source.label(number)}: {error}') from None
                writer.add(compressed, as_tensor=isinstance(value, torch.Tensor))
                codecs[compressed.method()] += 1
                before += compressed.original_nbytes()
                worst = max(worst, getattr(compressed, ERRORS[options.bound])())
                advance()
        writer.finish(source.names)
    after = os.path.getsize(output)
    return {'file': str(options.file), 'output': str(output), 'tensors': len(source.items),
            'bytes_before': before, 'bytes_after': after, 'ratio': before / after,
            'codecs': dict(codecs.most_common()), 'bound': options.bound, 'worst_error': worst,
            'seconds': round(time.perf_counter() - began, 3)}
