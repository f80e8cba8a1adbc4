# SPDX-License-Identifier: Apache-2.0
"""Shows what is in a file: each tensor, how it is stored, what that saves and the error that it leaves.

FILE is a file of frames (its checksums are verified), a single frame or a safetensors file. For example:

  python -m qvlmem inspect model.qvlm
  python -m qvlmem inspect model.qvlm --json | python -m json.tool | less

Errors were measured when the tensors were compressed: of the tensor, of its worst row, of its worst element.
`tools/frame show FILE` looks at the parts of a single frame, intact or not.
"""

import collections
import math
import os
import pathlib

import torch

from qvlmem import files
from qvlmem.commands import CommandError, file_command, terminal

SUMMARY = 'what is in a file of frames, or of safetensors'


def add_arguments(parser):
    parser.add_argument('file', metavar='FILE', type=pathlib.Path, help='a file of frames, or of safetensors')
    parser.add_argument('--json', action='store_true', help='print one JSON document and no table')


def main(options, parser):
    with file_command.failures_in_one_line():
        report = examine(options.file)
    if options.json:
        terminal.print_json(report)
    else:
        print_report(report, terminal.output_console())
    damaged = [row['damage'] for row in report['tensors'] if row['damage']]
    if damaged:
        more = f' (and {len(damaged) - 1} more)' if len(damaged) > 1 else ''
        raise CommandError(damaged[0].splitlines()[0] + more)
    return 0


def examine(path):
    """The figures as plain data; what is damaged has None for them, and says so."""
    with files.open_file(path) as source:
        names = source.names_by_item()
        rows = []
        with terminal.one_step('verifying', len(source.items)) as advance:
            for number, item in enumerate(source.items):
                rows.append({'names': names[number], **describe(source, number, item)})
                advance()
        intact = [row for row in rows if not row['damage']]
        before, after = (sum(row[key] for row in rows) for key in ('bytes_before', 'bytes_after'))
        return {
            'file': str(path), 'kind': source.kind, 'file_bytes': os.path.getsize(path),
            'metadata': source.metadata, 'tensors': rows,
            'total': {'tensors': len(rows), 'bytes_before': before, 'bytes_after': after,
                      'ratio': ratio(before, after),
                      'codecs': dict(collections.Counter(row['method'] for row in intact).most_common())},
        }


def describe(source, number, item):
    before = math.prod(item.shape) * getattr(torch, item.dtype).itemsize
    row = {'dtype': item.dtype, 'shape': list(item.shape), 'compressed': item.is_compressed, 'method': None,
           'bytes_before': before, 'bytes_after': item.stored_bytes,
           'ratio': ratio(before, item.stored_bytes),
           'relative_error': None, 'worst_row_error': None, 'max_element_error': None, 'damage': None}
    if source.kind == 'safetensors':
        return row | {'method': 'plain'}
    try:
        c = source.read(number, source.compressed)
    except ValueError as error:
        return row | {'damage': str(error)}
    errors = {name: getattr(c, name)() for name in ('relative_error', 'worst_row_error', 'max_element_error')}
    return row | {'method': c.method()} | {name: e if e >= 0 else None for name, e in errors.items()}


def ratio(before, after):
    return before / after if before and after else 1.0


def print_report(report, console):
    kinds = {'qvlmem': 'a file of frames', 'frame': 'a single frame', 'safetensors': 'a safetensors file'}
    terminal.print_lines(console, f"{report['file']}: {kinds[report['kind']]}, {report['file_bytes']} bytes")
    for key, value in report['metadata'].items():
        terminal.print_lines(console, terminal.printable(f'{key}: {value}'))
    table = terminal.new_table('', 'tensor', 'dtype', 'shape', 'method', 'bytes\nbefore', 'bytes\nafter', 'ratio',
                               'worst row\nerror', text=('dtype', 'shape', 'method'))
    for row in report['tensors']:
        name = ' = '.join(row['names']) or '(without a name)'
        table.add_row(terminal.plain(name), row['dtype'], terminal.plain(str(row['shape'])), state(row),
                      *sizes(row), error_text(row))
    table.add_section()
    codecs = ', '.join(f'{method} {count}' for method, count in report['total']['codecs'].items())
    table.add_row('all', '', '', codecs, *sizes(report['total']), '')
    console.print(table)


def state(row):
    if row['damage']:
        return 'damaged'
    return f"{row['method']}, held" if row['compressed'] else row['method']


def sizes(row):
    return f"{row['bytes_before']:,}", f"{row['bytes_after']:,}", f"{row['ratio']:.2f}"


def error_text(row):
    error = row['worst_row_error']
    return '' if error is None else f'{error:.3g}' if error else 'exact'
