# SPDX-License-Identifier: Apache-2.0
"""A page of pictures of the main job: one HTML file with nothing beside it.

Takes what `python -m qvlmem run --json` printed, from a file or (-) from standard input; without one it runs
the main job with its defaults first. For example:

    python -m qvlmem run --shape 2b --json > 2b.json
    python -m qvlmem report 2b.json --output 2b.html
"""

import html
import importlib.util
import io
import json
import pathlib
import sys

from qvlmem.commands import CommandError, run, terminal

SUMMARY = 'the main job as an HTML page with pictures'
# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = {'weights': '#0072b2', 'vision_features': '#009e73', 'deepstack_features': '#56b4e9',
           'keys': '#e69f00', 'values': '#d55e00'}
MIB = 2**20
PAGE = '''<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.15rem; margin-top: 2.5rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top }}
th:first-child, td:first-child, .text td, .text th {{ text-align: left }}
tr.total td {{ font-weight: 600 }}
svg {{ max-width: 100%; height: auto }}
.scroll {{ overflow-x: auto }} .note {{ color: #666; font-size: .9rem }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
{sections}
</html>
'''


def add_arguments(parser):
    parser.add_argument('file', metavar='FILE', nargs='?',
                        help="what 'run --json' printed; - is standard input (default: run the main job)")
    parser.add_argument('--output', '-o', metavar='FILE', type=pathlib.Path, default=pathlib.Path('report.html'),
                        help='the page to write (default: report.html)')


def main(options, parser):
    if importlib.util.find_spec('matplotlib') is None:
        raise CommandError("this needs matplotlib, which is not installed; pip install 'qvlmem[run]' installs it")
    report = read_report(options.file) if options.file else run.measure(default_run_options())
    try:
        page = new_page(report)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if options.file is None:
            raise
        raise CommandError(f"{options.file} is not what 'run --json' prints: {type(error).__name__} {error}") from None
    try:
        options.output.write_text(page, encoding='utf-8')
    except OSError as error:
        raise CommandError(f'cannot write {options.output}: {error.strerror}') from None
    terminal.print_lines(terminal.output_console(), f'{options.output}: {len(page.encode()) / 1000:.0f} kB')
    return 0


def default_run_options():
    import argparse
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args([])


def read_report(name):
    try:
        text = sys.stdin.read() if name == '-' else pathlib.Path(name).read_text(encoding='utf-8')
        return json.loads(text)
    except OSError as error:
        raise CommandError(f'cannot read {name}: {error.strerror}') from None
    except (ValueError, RecursionError) as error:
        raise CommandError(f'{name} is not JSON: {error}') from None


def new_page(report):
    settings = report['settings']
    held = report['memory']['held']
    before, after = (sum(held[key].values()) for key in ('uncompressed_at_most', 'alive_at_most'))
    summary = [f"{before / MIB:.1f} MiB of weights, vision features, keys and values were held in "
               f"{after / MIB:.1f} MiB ({before / after:.2f} times less), computing in {settings['dtype']} with "
               f"max_error {settings['max_error']:g} and bound {settings['bound']}."]
    accuracy = report['accuracy']
    if accuracy['plain'] is not None:
        summary.append(f"Held-out digits read rightly: {100 * accuracy['plain']:.2f} % plain, "
                       f"{100 * accuracy['held']:.2f} % held.")
    summary.append(f"{report['changed']['tokens_that_differ']} tokens differ; mean KL divergence "
                   f"{report['changed']['mean_kl_nats']:.2g} nats.")
    sections = [
        section('Memory over time', memory_over_time(report),
                'Storages alive after each token, by kind. Both pictures have the same scale. Vision features are '
                'kept by the held side alone, so that a second question on an image finds them.'),
        section('By kind', kinds_table(report)),
        section('Size and error of every tensor', sizes_and_errors(report),
                'One point a tensor: its bytes, and the share that they were compressed to, with the codec that '
                'was chosen; the error of its worst row.'),
        section('Time', seconds_table(report)),
        section('Answers', answers_table(report)),
    ]
    return PAGE.format(title=html.escape(f"qvlmem: {report['model']['name']}"),
                       summary=html.escape(' '.join(summary)), sections='\n'.join(sections))


def section(title, content, note=None):
    note = f'<p class="note">{html.escape(note)}</p>' if note else ''
    return f'<h2>{html.escape(title)}</h2>\n<div class="scroll">{content}</div>{note}'


def new_figure(width, height, columns, **options):
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.subplots(1, columns, **options)
    for axis in axes:
        axis.spines[['top', 'right']].set_visible(False)
        axis.grid(axis='y', color='#ddd', linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def svg(figure):
    import matplotlib
    text = io.StringIO()
    # Dates and random ids would make two pages of the same figures differ.
    with matplotlib.rc_context({'svg.hashsalt': 'qvlmem', 'svg.fonttype': 'none', 'font.family': 'sans-serif'}):
        figure.savefig(text, format='svg', metadata={'Date': None})
    return text.getvalue()[text.getvalue().index('<svg'):]


def memory_over_time(report):
    figure, axes = new_figure(10, 3.6, 2, sharey=True)
    for axis, side in zip(axes, ('plain', 'held')):
        samples = report['timeline'][side]
        seconds = [sample[0] for sample in samples]
        kinds = [kind for kind in COLOURS if any(kind in sample[1] for sample in samples)]
        axis.stackplot(seconds, [[sample[1].get(kind, 0) / MIB for sample in samples] for kind in kinds],
                       colors=[COLOURS[kind] for kind in kinds], labels=[kind.replace('_', ' ') for kind in kinds],
                       linewidth=0)
        axis.set(title=side, xlabel='seconds since the model began to load')
    axes[0].set_ylabel('MiB alive')
    axes[1].legend(loc='upper right', frameon=True, framealpha=1, edgecolor='none', fontsize='small', reverse=True)
    return svg(figure)


def sizes_and_errors(report):
    figure, axes = new_figure(10, 3.6, 2)
    methods = sorted({entry['method'] for entry in report['tensors']})
    marks = dict(zip(methods, 'osD^vXP*<>'))
    for kind, colour in COLOURS.items():
        for method in methods:
            members = [entry for entry in report['tensors'] if (entry['kind'], entry['method']) == (kind, method)]
            original = [entry['original_bytes'] for entry in members]
            shares = [entry['compressed_bytes'] / entry['original_bytes'] for entry in members]
            errors = [entry['worst_row_error'] for entry in members]
            for axis, ys in zip(axes, (shares, errors)):
                axis.scatter(original, ys, s=14, c=colour, marker=marks[method], linewidths=0)
    axes[0].set(ylabel='compressed / original', xlabel='bytes of the tensor', xscale='log', ylim=(0, None))
    axes[1].set(ylabel='error of the worst row', xlabel='bytes of the tensor', xscale='log', ylim=(0, None))
    axes[1].axhline(report['settings']['max_error'], color='#888', linewidth=0.8, linestyle='--')
    handles = [axes[0].scatter([], [], c='#555', marker=marks[method], label=method, linewidths=0)
               for method in methods]
    axes[0].legend(handles=handles, frameon=False, fontsize='small')
    axes[1].legend(handles=[axes[1].scatter([], [], c=COLOURS[kind], label=kind.replace('_', ' '), linewidths=0)
                            for kind in report['kinds']], frameon=False, fontsize='small')
    return svg(figure)


def table(header, rows, total=False, kind='figures'):
    lines = ['<tr>' + ''.join(f'<th>{html.escape(name)}</th>' for name in header) + '</tr>']
    for index, row in enumerate(rows):
        mark = ' class="total"' if total and index == len(rows) - 1 else ''
        lines.append(f'<tr{mark}>' + ''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row) + '</tr>')
    return f'<table class="{kind}">\n' + '\n'.join(lines) + '\n</table>'


def kinds_table(report):
    rows = []
    for kind, figures in (report['kinds'] | {'all': report['total']}).items():
        rows.append((kind.replace('_', ' '), figures['tensors'], run.mib(figures['bytes_before']),
                     run.mib(figures['bytes_after']), f"{figures['ratio']:.2f}",
                     ', '.join(f'{method} {count}' for method, count in figures['codecs'].items()),
                     f"{figures['worst_tensor_error']:.5f}", f"{figures['worst_row_error']:.5f}"))
    return table(('kind', 'count', 'MiB before', 'MiB after', 'ratio', 'codecs', 'worst tensor error',
                  'worst row error'), rows, total=True)


def seconds_table(report):
    return table(('seconds', 'plain', 'held'), [
        (name, *(f"{report['seconds'][side][name]:.2f}" for side in ('plain', 'held')))
        for name in ('load', 'prefill', 'decode')])


def answers_table(report):
    rows = []
    for question in report['questions']:
        said = [question[side]['text'] if question[side]['text'] is not None
                else ' '.join(map(str, question[side]['tokens'])) for side in ('plain', 'held')]
        rows.append((question['prompt'] or '(seeded tokens)', said[0],
                     'the same' if said[0] == said[1] else said[1]))
    return table(('asked', 'plain', 'held'), rows, kind='text')
