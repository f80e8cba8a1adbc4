# SPDX-License-Identifier: Apache-2.0
"""What the commands on files share: their arguments, their failures, and how they say what they wrote."""

import contextlib
import os
import pathlib

import qvlmem
from qvlmem.commands import CommandError, terminal


def add_arguments(parser, what, suffix):
    parser.add_argument('file', metavar='FILE', type=pathlib.Path, help=what)
    parser.add_argument('-o', '--output', metavar='OUT', type=pathlib.Path,
                        help=f'what to write (default: FILE with the suffix {suffix})')
    parser.add_argument('--force', action='store_true', help='replace OUT where it exists')


@contextlib.contextmanager
def failures_in_one_line():
    """Loads the library; errors about files and what is in them become CommandErrors."""
    try:
        qvlmem.load_library()
        yield
    except ImportError as error:
        raise CommandError(error) from None
    except OSError as error:
        raise CommandError(f'{error.filename}: {error.strerror}' if error.filename else error) from None
    except (ValueError, TypeError) as error:
        raise CommandError(str(error).splitlines()[0]) from None


def output_path(options, suffix):
    """Where to write. CommandError where something is there that the user did not say to replace."""
    if options.output is None and not options.file.name:
        raise CommandError(f'{options.file} is a folder')
    path = options.output or options.file.with_suffix(suffix)
    if os.path.lexists(path) and not options.force:
        raise CommandError(f'{path} exists; --force replaces it, -o OUT writes elsewhere')
    return path


def print_written(report, more=''):
    """One line: what was written, from how much, to how much."""
    terminal.print_lines(
        terminal.output_console(),
        f"{report['output']}: {report['tensors']} tensors{more}, {report['bytes_before'] / 2**20:.3f} MiB to "
        f"{report['bytes_after'] / 2**20:.3f} MiB, {report['seconds']:.1f} s")
