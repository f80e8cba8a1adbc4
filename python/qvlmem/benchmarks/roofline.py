# SPDX-License-Identifier: Apache-2.0
"""A picture of how fast each case runs, beside what the copy's bandwidth allows for the bytes that it moves."""

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from qvlmem.benchmarks.cases import CODECS
from qvlmem.benchmarks.figure_tables import size_text

COLOURS = {'encode': '#0072b2', 'decode': '#e69f00'}  # Okabe and Ito's, which the colour-blind can tell apart
NAMES = {'encode': 'in', 'decode': 'out'}
QUICKEST = {'marker': 'o', 'markersize': 4, 'markerfacecolor': 'white', 'linestyle': 'none'}


def of_picture(rows):
    """The rows that are drawn: warm, of the first ISA, and of the largest size."""
    condition, isa = rows[0]['condition'], rows[0]['isa']
    drawn = [row for row in rows if (row['condition'], row['isa']) == (condition, isa) and row['moved_bytes']
             and row['ratio'] is not None]
    largest = max((row['bytes'] for row in drawn), default=0)
    return [row for row in drawn if row['bytes'] == largest]


def label(row):
    return f"{row['case']}: {NAMES[row['direction']]}"


def draw(report, path):
    """Writes the picture; the suffix of `path` says in which format."""
    rows = of_picture(report['rows'])
    dtypes = list(dict.fromkeys(row['dtype'] for row in rows))
    panels = sorted({(row['threads'], row['dtype']) for row in rows},
                    key=lambda panel: (dtypes.index(panel[1]), panel[0]))
    # By the table of cases: one of bfloat16 alone is not last.
    order = [codec.name for codec in CODECS]
    labels = dict.fromkeys(map(label, sorted(rows, key=lambda row: order.index(row['case']))))
    places = {name: place for place, name in enumerate(labels)}
    figure = Figure(figsize=(2.4 + 3.1 * len(panels), 1.5 + 0.21 * len(places)), layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axis, panel in zip(axes, panels):
        draw_panel(axis, [row for row in rows if (row['threads'], row['dtype']) == panel], places, *panel)
    axes[0].set_yticks(range(len(places)), places)
    axes[0].set_ylim(len(places) - 0.4, -0.6)
    axes[0].set_xlim(0, None)
    figure.legend([Patch(color=colour) for colour in COLOURS.values()]
                  + [Line2D([], [], color='black'), Line2D([], [], color='black', **QUICKEST)],
                  ['in: compressing', 'out: decompressing', 'limit: the bytes moved, at the bandwidth of a copy',
                   'the quickest of the others'],
                  loc='outside lower center', ncols=2 if len(panels) < 3 else 4, frameon=False)
    figure.suptitle(f"{size_text(rows[0]['bytes'])}, {rows[0]['condition']}, {rows[0]['isa']}, "
                    f"{report['machine']['model']}")
    with rc_context({'svg.hashsalt': 'qvlmem', 'svg.fonttype': 'none'}):
        figure.savefig(path, metadata={'Date': None} if path.suffix == '.svg' else None)


def draw_panel(axis, rows, places, threads, dtype):
    for row in rows:
        place = places[label(row)]
        # The copy reads and writes every byte: its bandwidth over the bytes moved is the limit.
        limit = row['gb_per_s'] * row['x_copy'] / row['x_copy_limit']
        axis.barh(place, row['gb_per_s'], color=COLOURS[row['direction']], height=0.7)
        axis.plot([limit, limit], [place - 0.45, place + 0.45], color='black', linewidth=1.6)
        if row['rivals']:
            axis.plot(row['gb_per_s'] * max(rival['ours_over_theirs'] for rival in row['rivals'].values()), place,
                      color='black', **QUICKEST)
    axis.spines[['top', 'right']].set_visible(False)
    axis.tick_params(axis='y', length=0)
    axis.grid(axis='x', color='0.85', linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set(title=f"{dtype}, {threads} thread{'s' * (threads > 1)}", xlabel='GB/s of the tensor')
