# SPDX-License-Identifier: Apache-2.0
"""Writes the tensors of a file of frames as a safetensors file, for programs that do not know qvlmem.

For example:

  python -m qvlmem decompress model.qvlm                         # writes model.safetensors
  python -m qvlmem decompress model.qvlm -o /tmp/plain.safetensors --force

FILE was written by `compress`, qvlmem.save or qvlmem.pack. Names and metadata stay; tensors that were saved
without a name get the name tensor, tied ones are written once a name.
"""

import os
import time

from qvlmem import files
from qvlmem.commands import CommandError, file_command, terminal

SUMMARY = 'frames in, safetensors out'
SUFFIX = '.safetensors'


def add_arguments(parser):
    file_command.add_arguments(parser, 'a file of frames', SUFFIX)
    parser.add_argument('--json', action='store_true', help='print one JSON document')


def main(options, parser):
    with file_command.failures_in_one_line():
        report = decompress(options, file_command.output_path(options, SUFFIX))
    if options.json:
        terminal.print_json(report)
    else:
        file_command.print_written(report)
    return 0


def decompress(options, output):
    """Does it, and returns the figures as plain data."""
    began = time.perf_counter()
    with files.open_file(options.file) as source:
        if source.kind == 'safetensors':
            raise CommandError(f'{options.file} is a safetensors file already')
        count = len(source.items) if source.names is None else len(source.names)
        with terminal.one_step('decompressing', count) as advance, files.replacing(output) as file:
            files.write_safetensors(file, source, advance)
    before, after = os.path.getsize(options.file), os.path.getsize(output)
    return {'file': str(options.file), 'output': str(output), 'tensors': count, 'bytes_before': before,
            'bytes_after': after, 'seconds': round(time.perf_counter() - began, 3)}
