# SPDX-License-Identifier: Apache-2.0
"""What can be said of rows once all are there: others' figures beside each ISA of ours, speed-ups, goals."""

from qvlmem.benchmarks.cases import CODECS

SPEEDUP = 1.7  # that several threads are to have over one, where the copy has it
GPU_SHARE_OF_COPY = 0.8
GPU_LARGE = 64 << 20  # bytes, from which on it is aimed at
PLACE = ('condition', 'isa', 'threads', 'dtype', 'bytes', 'case', 'direction')


def judge(rows, on_gpu):
    share_rivals(rows)
    add_speedups(rows)
    warm = rows_but(rows, 'condition', 'warm')
    for row in rows:
        if on_gpu:
            goals = gpu_goals(row)
        elif row['condition'] == 'cold':
            goals = cold_goals(row, warm.get(place(row, 'condition')))
        else:
            goals = warm_goals(row)
        row['goals'] = [{'goal': text, 'met': met} for text, met in goals]


def place(row, but):
    return tuple(row[name] for name in PLACE if name != but)


def rows_but(rows, name, value):
    """{place of a row but for `name`: row} of those that have this value of it."""
    return {place(row, name): row for row in rows if row[name] == value}


def share_rivals(rows):
    """Gives rows the rivals that were measured beside the first ISA alone, which theirs do not depend on."""
    first = rows_but(rows, 'isa', rows[0]['isa'] if rows else None)
    for row in rows:
        measured = first.get(place(row, 'isa'), row)
        for name, rival in measured['rivals'].items():
            if name not in row['rivals']:
                row['rivals'][name] = rival | {'ours_over_theirs': row['x_copy'] / rival['x_copy'],
                                               'beside': measured['isa']}


def add_speedups(rows):
    """Gives each row of several threads the times that it is faster than with one, and the same of the copy."""
    single = rows_but(rows, 'threads', 1)
    for row in rows:
        one = single.get(place(row, 'threads'))
        if row['threads'] > 1 and one:
            row['x_one_thread'] = one['ms'] / row['ms']
            row['copy_x_one_thread'] = one['copy_ms'] / row['copy_ms']


def warm_goals(row):
    codec = next(codec for codec in CODECS if codec.name == row['case'])
    for goal in codec.goals(row['direction']):
        value = goal.value(row)
        if value is not None and goal.applies(row['dtype'], row['threads'], row['bytes']):
            yield goal.text(value), goal.met(value)
    if row.get('copy_x_one_thread', 0) >= SPEEDUP:
        yield f'x one thread >= {SPEEDUP}', row['x_one_thread'] >= SPEEDUP


def cold_goals(row, warm):
    """No longer than warm, and what its outputs and their first touch take."""
    if warm:
        # By the copy, for a machine is not as quick in one process as it was in another.
        most = warm['x_copy'] * row['copy_ms'] + row['touch_ms']
        yield f'ms <= {most:.3g} (warm, and its outputs touched)', row['ms'] <= most


def gpu_goals(row):
    """A part of the copy's bandwidth for what memory limits, and svd beside PyTorch's."""
    if row['x_copy_limit'] is not None and row['bytes'] >= GPU_LARGE:
        most = row['x_copy_limit'] / GPU_SHARE_OF_COPY
        yield f'<= {most:.3g} ({GPU_SHARE_OF_COPY:.0%} of the copy)', row['x_copy'] <= most
    if 'torch.linalg.svd' in row['rivals']:
        value = row['rivals']['torch.linalg.svd']['ours_over_theirs']
        yield f'x torch.linalg.svd: {value:.3g} <= 0.2', value <= 0.2
