# SPDX-License-Identifier: Apache-2.0
"""What the commands print with: tables and JSON on stdout, progress on stderr."""

import contextlib
import json
import math
import sys

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

WIDTH_OF_FILES = 200  # where stdout is no terminal: room for the names of weights


def output_console(width_of_files=WIDTH_OF_FILES):
    return Console(width=None if sys.stdout.isatty() else width_of_files, highlight=False)


def print_json(document):
    # All of it or nothing; JSON has no NaN and no infinities.
    print(json.dumps(finite(document), indent=2, allow_nan=False))


def finite(document):
    """`document` with None in place of what is not finite."""
    if isinstance(document, dict):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def new_table(title, *columns, text=(), **options):
    """A table of text (the first column and those in `text`) and figures; only the first wraps."""
    table = Table(title=title, title_justify='left', title_style='bold', caption_justify='left',
                  box=box.SIMPLE_HEAD,
                  pad_edge=False, padding=(0, 1, 0, 0), **options)
    lines = max(name.count('\n') for name in columns)
    for index, name in enumerate(columns):
        left = index == 0 or name in text
        header = '\n' * (lines - name.count('\n')) + name
        table.add_column(header, justify='left' if left else 'right', no_wrap=index > 0, overflow='fold')
    return table


def print_lines(console, *lines):
    """Text as it is: no markup, no wrapping."""
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def printable(text):
    """Text from a file: what a terminal would obey or could not show is escaped."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def plain(text):
    """The same for a table, whose cells may otherwise hold markup."""
    return Text(printable(text))


@contextlib.contextmanager
def one_step(description, total):
    """A progress bar; yields advance(), to be called `total` times. Silent where stderr is no terminal."""
    progress = Progress(
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)
        progress.update(task, completed=total)
