# SPDX-License-Identifier: Apache-2.0
"""A picture of how fast each case runs, beside what the copy's bandwidth allows for the bytes that it moves."""

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from qvlmem.benchmarks.figure_tables import size_text

COLOURS = {'encode': '#0072b2', 'decode': '#e69f00'}  # Okabe and Ito's, which the colour-blind can tell apart
NAMES = {'encode': 'in', 'decode': 'out'}


def of_picture(rows):
    """The rows that are drawn: warm, of the first ISA, and of the largest size."""
    condition, isa = rows[0]['condition'], rows[0]['isa']
    drawn = [row for row in rows if (row['condition'], row['isa']) == (condition, isa) and row['moved_bytes']
             and row['ratio'] is not None]
    largest = max((row['bytes'] for row in drawn), default=0)
    return [row for row in drawn if row['bytes'] == largest]


def draw(report, path):
    """Writes the picture; the suffix of `path` says in which format."""
    rows = of_picture(report['rows'])
    panels = sorted({(row['threads'], row['dtype']) for row in rows}, key=lambda panel: (panel[0], panel[1]))
    height = 1.2 + 0.24 * max(sum((row['threads'], row['dtype']) == panel for row in rows) for panel in panels)
    figure = Figure(figsize=(5.2 * len(panels), height), layout='constrained')
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        draw_panel(axis, [row for row in rows if (row['threads'], row['dtype']) == panel], *panel)
    figure.legend([Patch(color=colour) for colour in COLOURS.values()] + [Line2D([], [], color='black')],
                  [*NAMES.values(), 'limit: the bytes moved, at the bandwidth of a copy'], loc='outside lower center',
                  ncols=3, frameon=False)
    figure.suptitle(f"{size_text(rows[0]['bytes'])}, {rows[0]['condition']}, {rows[0]['isa']}, "
                    f"{report['machine']['model']}")
    with rc_context({'svg.hashsalt': 'qvlmem', 'svg.fonttype': 'none'}):
        figure.savefig(path, metadata={'Date': None} if path.suffix == '.svg' else None)


def draw_panel(axis, rows, threads, dtype):
    for place, row in enumerate(rows):
        # The copy reads and writes every byte: its bandwidth over the bytes moved is the limit.
        limit = row['gb_per_s'] * row['x_copy'] / row['x_copy_limit']
        axis.barh(place, row['gb_per_s'], color=COLOURS[row['direction']], height=0.7)
        axis.plot([limit, limit], [place - 0.45, place + 0.45], color='black', linewidth=1.6)
    axis.set_yticks(range(len(rows)), [f"{row['case']}: {NAMES[row['direction']]}" for row in rows])
    axis.invert_yaxis()
    axis.spines[['top', 'right']].set_visible(False)
    axis.set(title=f"{dtype}, {threads} thread{'s' * (threads > 1)}", xlabel='GB/s of the tensor', xlim=(0, None))
