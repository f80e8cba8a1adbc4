# SPDX-License-Identifier: Apache-2.0
"""`python -m qvlmem COMMAND`: see `--help`."""

import argparse
import importlib
import os
import sys

from qvlmem.commands import EXIT_INTERRUPTED, CommandError

COMMANDS = ('run', 'report', 'bench', 'compress', 'decompress', 'inspect', 'doctor')


def build_parser():
    parser = argparse.ArgumentParser(
        prog='python -m qvlmem',
        description='Compresses the tensors of PyTorch models.',
        epilog='Exit codes: 0 done, 1 failed, 2 wrong usage.')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name in COMMANDS:
        module = importlib.import_module(f'qvlmem.commands.{name}')
        command = commands.add_parser(
            name, help=module.SUMMARY, description=module.__doc__, epilog=parser.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(command)
        command.set_defaults(main=module.main, parser=command)
    return parser


def is_out_of_memory(error):
    # PyTorch's CPU allocator reports it as a RuntimeError.
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def main(arguments=None):
    """Runs a command and returns its exit code."""
    try:
        parser = build_parser()
    except ModuleNotFoundError as error:
        print(f'qvlmem: error: the commands need {error.name}, which is not installed; '
              "pip install 'qvlmem[run]' or tools/build installs it", file=sys.stderr)
        return 1
    options = parser.parse_args(arguments)
    name = f'qvlmem {options.command}'
    try:
        return options.main(options, options.parser)
    except CommandError as error:
        print(f'{name}: error: {error}', file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f'{name}: error: out of memory: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'{name}: interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python's own flush at exit would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == '__main__':
    sys.exit(main())
