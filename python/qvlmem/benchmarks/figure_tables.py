# SPDX-License-Identifier: Apache-2.0
"""The figures as rows of text, for the terminal and for Markdown."""

import itertools

COLUMNS = ('case', 'ms', 'spread', 'GB/s', 'x copy', 'limit', 'x one thread\n(the copy)', 'goal', 'ratio', 'error', 'others')
SUFFIXES = ((1 << 30, 'GiB'), (1 << 20, 'MiB'), (1 << 10, 'KiB'))


def size_text(count):
    for unit, suffix in SUFFIXES:
        if count >= unit:
            return f'{count / unit:.4g} {suffix}'
    return f'{count} B'


def grouped(rows):
    """(title, rows) of each table: one a condition, ISA, thread count, dtype and size."""
    def key(row):
        return row['condition'], row['isa'], row['threads'], row['dtype'], row['bytes']

    order = {value: index for index, value in enumerate(dict.fromkeys(map(key, rows)))}
    for (condition, isa, threads, dtype, size), members in itertools.groupby(
            sorted(rows, key=lambda row: order[key(row)]), key):
        members = list(members)
        copy = sorted(row['copy_ms'] for row in members)[len(members) // 2]
        yield (f"{size_text(size)} of {dtype}, {condition}, {isa}, {threads} thread{'s' * (threads > 1)}; "
               f'a copy takes {copy:.4g} ms ({2 * size / copy / 1e6:.3g} GB/s read and written)'), members


def cells(row, others=None):
    """The row's texts, by COLUMNS; of the others so many, the quickest first."""
    is_pair = row['ratio'] is not None  # it can be decoded
    error = '' if not is_pair else 'exact' if not row['error'] else f"{row['error']:.2g}"
    rivals = sorted(row['rivals'].items(), key=lambda rival: rival[1]['ms'])[:others]
    return (f"{row['case']}: {'in' if row['direction'] == 'encode' else 'out'}" if is_pair else row['case'],
            f"{row['ms']:.4g}", f"{100 * row['spread']:.0f} %", f"{row['gb_per_s']:.3g}", f"{row['x_copy']:.3g}",
            '' if row['x_copy_limit'] is None else f"{row['x_copy_limit']:.2f}",
            f"{row['x_one_thread']:.2f} ({row['copy_x_one_thread']:.2f})" if 'x_one_thread' in row else '',
            '\n'.join(f"{goal['goal']}: {'met' if goal['met'] else 'not met'}" for goal in row['goals']),
            f"{row['ratio']:.3g}" if is_pair else '', error if row['error_as_stated'] else f'{error} (!)',
            '\n'.join(f"{name} {rival['x_copy']:.3g}" for name, rival in rivals))


def machine_lines(report):
    machine = report['machine']
    loads = ' to '.join(f'{load:.1f}' for load in machine['load_average'])
    clock = {'wall': 'wall clock', 'cpu': 'CPU time', 'gpu': 'wall clock, once the GPU was done'}[report['settings']['clock']]
    lines = [f"{machine['model']}, {machine['cores']} cores, load average {loads}; PyTorch {machine['torch']}; "
             f"medians of {report['settings']['repeats']} rounds, {clock}"]
    return lines + report['notes']


def markdown(report, picture=None):
    """A page of Markdown: the machine, the picture, and every table."""
    blocks = ['# Figures of the benchmarks', 'Printed by `python -m qvlmem bench --markdown`; benchmarks.md says how to '
              'read them.', '\n'.join(f'- {line}' for line in machine_lines(report))]
    if picture:
        blocks.append(f'![Speed of each case beside its limit]({picture.name})')
    for title, rows in grouped(report['rows']):
        lines = [[name.replace('\n', ' ') for name in COLUMNS], ['---'] * len(COLUMNS), *map(cells, rows)]
        blocks.append(f'## {title}\n\n' + '\n'.join(
            '| ' + ' | '.join(cell.replace('\n', '<br>') for cell in line) + ' |' for line in lines))
    return '\n\n'.join(blocks)
