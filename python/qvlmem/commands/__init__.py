# SPDX-License-Identifier: Apache-2.0
"""The commands of `python -m qvlmem`, one module each.

A command module has SUMMARY (one line for --help), add_arguments(parser) and main(options, parser),
which returns the exit code: 0 done, 1 failed. Wrong usage ends in parser.error, exit code 2. What a
command finds out it puts into plain data first; printing comes after, so that both can be tested.
"""

EXIT_INTERRUPTED = 130


class CommandError(Exception):
    """Something the user can act on: printed in one line, exit code 1, no traceback."""
