# SPDX-License-Identifier: Apache-2.0
"""`python -m qvlmem bench`: every case measured, errors as stated, and what is wrong said. Nothing about speed."""

import contextlib
import importlib.util
import io
import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import torch

from qvlmem.__main__ import main
from qvlmem.benchmarks import contestant, figure_tables, judgement, rounds
from qvlmem.benchmarks.cases import CODECS, STORED, VALUES, Goal
from qvlmem.commands import doctor

SETTINGS = ['bench', '--sizes', '4KiB', '--repeats', '1', '--threads', '1']


def bench(capsys, *arguments):
    assert main([*SETTINGS, *arguments]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """What --json prints of both conditions, with all files of values, and an environment that is not there."""
    from safetensors.torch import save_file
    folder = tmp_path_factory.mktemp('bench')
    torch.manual_seed(0)
    save_file({'layer': torch.randn(40, 50), 'embeddings': torch.zeros(9, 9), 'bias': torch.zeros(9)},
              folder / 'weights.safetensors')
    save_file({'hidden_states': torch.randn(3, 5, 8).bfloat16(), 'key_values': torch.randn(2, 2, 3, 5, 4).bfloat16()},
              folder / 'activations.safetensors')
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*SETTINGS, '--json', '--weights', str(folder / 'weights.safetensors'),
                     '--activations', str(folder / 'activations.safetensors'), '--peers', str(folder / 'missing'),
                     '--picture', str(folder / 'figures.svg')]) == 0
    assert (folder / 'figures.svg').read_text().count('<svg') == 1
    return json.loads(printed.getvalue())


def figures(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [figure for part in value for figure in figures(part)]
    return [value] if isinstance(value, float) else []


def test_every_case_has_finite_figures(report):
    expected = {(codec.name, direction, dtype, condition)
                for codec in CODECS for dtype in codec.dtypes for condition in ('warm', 'cold')
                for direction in (('encode', 'decode') if codec.decode else ('encode',))}
    rows = {(row['case'], row['direction'], row['dtype'], row['condition']): row for row in report['rows']}
    assert rows.keys() == expected and len(report['rows']) == len(expected)
    assert all(math.isfinite(figure) for figure in figures(report['rows']))
    assert all(row['ms'] > 0 and row['copy_ms'] > 0 and row['bytes'] == 4096 for row in rows.values())


def test_errors_are_what_the_operators_state(report):
    assert all(row['error_as_stated'] for row in report['rows'])
    for row in report['rows']:
        if row['case'].startswith(('lossless', 'sparse')):
            assert row['error'] == 0
        elif row['case'].startswith('bounded'):
            assert 0 < row['error'] <= 0.01


@pytest.mark.parametrize('codec', [c for c in CODECS if c.decode], ids=lambda c: c.name)
def test_an_error_beyond_what_is_stated_is_seen(codec):
    x = VALUES[codec.values](4096, torch.float32, dict.fromkeys(STORED, torch.randn(2000)))
    kept = codec.encode(x)
    assert codec.holds(x, kept, codec.decode(kept, x))
    assert not codec.holds(x, kept, x + x.abs().max() / 4)


def test_what_pytorch_has_is_measured_too(report):
    rows = [row for row in report['rows'] if row['dtype'] == 'float32' and row['case'] == 'svd 1 %, exp(-i/50)']
    assert all(row['rivals'].keys() == {'torch.linalg.svd', 'torch.svd_lowrank by doubling'} for row in rows)
    for row in rows:
        assert row['rivals']['torch.svd_lowrank by doubling']['error'] <= 0.0101


def test_a_missing_environment_is_said(report):
    assert any('no peers measured' in note and 'missing' in note for note in report['notes'])


def test_peers_are_measured_by_the_python_of_their_environment(capsys, monkeypatch):
    monkeypatch.setenv('PYTHONSAFEPATH', '1')
    pytest.importorskip('scipy')
    if not (pathlib.Path(sys.prefix) / 'bin' / 'python').exists():
        pytest.skip('this Python lies in no environment')
    report = json.loads(bench(capsys, '--dtypes', 'fp32', '--conditions', 'warm', '--json', '--peers', sys.prefix))
    rows = {(row['case'], row['direction']): row['rivals'] for row in report['rows']}
    for direction in ('encode', 'decode'):
        peer = rows['sparse, 80 % zeros', direction]['scipy coo']
        assert peer['ms'] > 0 and peer['error'] == 0 and 1.5 < peer['ratio'] < 3
    # A package that is missing there is named, and nothing of it is in the table.
    if importlib.util.find_spec('zfpy') is None:
        assert any(note.startswith('zfpy is not measured: ModuleNotFoundError') for note in report['notes'])
        assert not any('zfp fixed accuracy' in rivals for rivals in rows.values())


def test_cold_rows_have_the_goal_of_their_warm_ones(report):
    for row in report['rows']:
        if row['condition'] == 'cold':
            assert len(row['goals']) == 1 and 'warm' in row['goals'][0]['goal']


def test_tables_have_every_case(capsys):
    text = bench(capsys, '--dtypes', 'fp32', '--conditions', 'warm', '--markdown')
    assert 'other packages' in text and 'load average' in text and torch.__version__ in text
    for codec in CODECS:
        if codec.values not in STORED:
            assert f'| {codec.name}' in text
    text = bench(capsys, '--dtypes', 'bf16', '--conditions', 'cold', '--isa', 'portable')
    assert 'lossless 2, gaussian: out' in text and 'cold, portable, 1 thread' in text


@pytest.mark.parametrize('arguments', [
    ['--sizes', '4'], ['--sizes', '1KiB'], ['--sizes', '5000B'], ['--sizes', '8GiB'], ['--sizes', ''],
    ['--dtypes', 'fp64'], ['--threads', '0'], ['--threads', '9999'], ['--threads', 'two'], ['--repeats', '0'],
    ['--isa', 'sse'], ['--conditions', 'hot'], ['--clock', 'sun'], ['--clock', 'cpu', '--threads', 'all'],
    ['--picture', 'figures.txt'], ['--json', '--markdown'], ['codecs']])
def test_wrong_usage(arguments, capsys, monkeypatch):
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: {0, 1})
    with pytest.raises(SystemExit) as error:
        main(['bench', *arguments])
    assert error.value.code == 2 and capsys.readouterr().out == ''


@pytest.mark.parametrize('arguments, reason', [
    (['--weights', '/nowhere/x.safetensors'], '--weights: there is no file /nowhere/x.safetensors'),
    (['--activations', '/nowhere/x.safetensors'], '--activations: there is no file /nowhere/x.safetensors'),
    (['--activations', __file__], 'test_bench.py is no safetensors file: '),
    (['--isa', 'avx512'], '--isa avx512: this CPU lacks it'),
    (['--device', 'cuda'], '--device cuda: th')])  # ... this library was built without, or: there is no GPU
def test_what_is_not_there_is_named(arguments, reason, capsys, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr('qvlmem.commands.doctor.ISA_FLAGS', {})
    assert main([*SETTINGS, *arguments]) == 1
    assert reason in capsys.readouterr().err


def test_a_missing_library_is_named_without_a_traceback(tmp_path):
    path = tmp_path / 'libqvlmem.so'
    asked = subprocess.run([sys.executable, '-m', 'qvlmem', *SETTINGS], env={**os.environ, 'QVLMEM_LIBRARY': str(path)},
                           capture_output=True, text=True, timeout=120, check=False)
    assert asked.returncode == 1 and asked.stdout == ''
    assert asked.stderr.startswith(f'qvlmem bench: error: qvlmem: there is no library at {path}')


def test_rounds_alternate_and_slow_ones_end_early():
    order, now = [], {'copy': 1e-4, 'slow': 1.0}

    def timer(name):
        return lambda calls: order.append((name, calls)) or now[name] * calls

    samples = rounds.race({name: timer(name) for name in now}, repeats=5, guests={'slow'})
    assert samples['slow'] == [1.0] * 3 and samples['copy'] == pytest.approx([1e-4] * 5)
    # Two warm-ups of what is quick, one of what is not.
    assert order == [('copy', 1)] * 2 + [('slow', 1)] + [('copy', 10), ('slow', 1)] * 3 + [('copy', 10)] * 2
    # What is no guest stays, however slow it is.
    assert len(rounds.race({'ours': timer('slow')}, repeats=5)['ours']) == 5


def test_ratios_are_of_rounds_not_of_medians():
    # A machine that slows down for all of them alike leaves the ratio as it is.
    assert rounds.summary([1.0, 20.0, 3.0], of=[2.0, 40.0, 6.0]) == (0.5, 0.0)
    assert rounds.summary([4.0]) == (4.0, 0.0)


def test_stored_bytes_are_those_of_the_parts():
    x = torch.tensor([0, 1.5, 0, 2])
    assert contestant.stored_bytes((x, x.half(), b'abc')) == 16 + 8 + 3
    assert contestant.stored_bytes(torch.ops.qvlmem.compress(x, 'fp16')) == 12


def test_goals_hold_where_they_were_set():
    goal = Goal('x_copy', at_most=0.6)
    assert goal.applies('float32', 1, 64 << 20) and goal.met(0.6) and not goal.met(0.61)
    assert not any(goal.applies(*row) for row in
                   (('bfloat16', 1, 64 << 20), ('float32', 2, 64 << 20), ('float32', 1, 1 << 20)))
    assert goal.text(0.5) == '<= 0.6' and not Goal('ratio', at_least=1.5).met(1.49)
    assert Goal('x torch.linalg.svd', at_most=1 / 12).text(0.05) == 'x torch.linalg.svd: 0.05 <= 0.0833'


def test_what_is_asked_of_every_codec():
    # (goal of encoding, of decoding), as they were set for 64 MiB of float32; lossless: GB/s of bfloat16, and its ratio.
    asked = {
        'int8, per tensor': ('<= 1.15', '<= 0.61'), 'int8, per row': ('<= 0.6', '<= 0.61'),
        'int8, group 128': ('<= 0.6', '<= 0.61'), 'int4, group 64': ('<= 0.58', '<= 0.58'),
        'int4, group 128': ('<= 0.58', '<= 0.58'), 'fp16': ('<= 0.8', '<= 0.78'),
        'sparse, 80 % zeros': ('<= 0.9', '<= 0.8'), 'profile': ('<= 0.05', None)}
    for level, entering, leaving, *ratios in ((1, 10, 12, 1.35, 1.32, 1.32), (2, 2.5, 4, 1.5, 1.47, 1.48)):
        for values, ratio in zip(('gaussian', 'hidden states', 'key values'), ratios):
            asked[f'lossless {level}, {values}'] = (f'GB/s >= {entering}, ratio >= {ratio}', f'GB/s >= {leaving}')
    codecs = {codec.name: codec for codec in CODECS}
    for name, texts in asked.items():
        dtype = 'bfloat16' if name.startswith('lossless') else 'float32'
        for direction, text in zip(('encode', 'decode'), texts):
            goals = [goal.text(0) for goal in codecs[name].goals(direction) if goal.applies(dtype, 1, 64 << 20)]
            assert ', '.join(goals) == (text or ''), name


def test_what_hangs_on_others_is_asked_too():
    def goals(case, size, threads, **figures):
        row = {'case': case, 'direction': 'encode', 'dtype': 'float32', 'threads': threads, 'bytes': size,
               'x_copy': 3.0} | figures
        return list(judgement.warm_goals(row))

    def rivals(**figures):
        return {name.replace('_', ' '): figure for name, figure in figures.items()}

    full = {'torch.linalg.svd': {'ours_over_theirs': 0.08, 'x_copy': 100.0},
            'torch.svd_lowrank by doubling': {'ours_over_theirs': 0.4}}
    assert goals('svd 1 %, exp(-i/50)', 16 << 20, 2, rivals=full, **{'rank / best': 1.04}) == [
        ('x torch.linalg.svd: 0.08 <= 0.0833', True), ('x torch.svd_lowrank by doubling: 0.4 <= 0.333', False),
        ('rank / best: 1.04 <= 1.05', True)]
    for alone, met in ((1.5, True), (0.5, False)):
        assert goals('auto, no low rank', 16 << 20, 2, rivals=full | rivals(bounded_alone={'x_copy': alone})) == [
            (f'refusal over torch.linalg.svd: {(3 - alone) / 100:.3g} <= 0.02', met)]
    small = rivals(fresh_outputs={'ours_over_theirs': 2.1})
    assert goals('int4, group 64', 4096, 1, rivals=small) == [('x fresh outputs: 2.1 <= 2', False)]
    for size in (4096, 1 << 20):
        assert goals('profile', size, 1, rivals={}, ms=0.2) == [('ms <= 0.1', False)]


def test_others_are_measured_beside_the_first_isa_and_told_beside_all(capsys):
    if 'avx2' not in doctor.cpu(pathlib.Path('/proc'))['isa_supported']:
        pytest.skip('this CPU has but one instruction set for the kernels')
    report = json.loads(bench(capsys, '--dtypes', 'fp32', '--conditions', 'warm', '--isa', 'portable,avx2', '--json'))
    rows = {(row['isa'], row['case'], row['direction']): row for row in report['rows']}
    for (isa, case, direction), row in rows.items():
        first = rows['portable', case, direction]
        assert row['rivals'].keys() == first['rivals'].keys()
        for name, rival in row['rivals'].items():
            if isa == 'avx2' and name not in ('fresh outputs', 'bounded alone'):
                assert rival['beside'] == 'portable' and rival['ms'] == first['rivals'][name]['ms']
                assert rival['ours_over_theirs'] == row['x_copy'] / rival['x_copy']
            else:
                assert 'beside' not in rival


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_what_was_measured_is_printed_when_it_is_interrupted(number):
    settings = [*SETTINGS, '--json']
    with subprocess.Popen([sys.executable, '-c', PRINTING_PROGRESS, *settings], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:  # after what PyTorch warns of
            if line == 'advanced\n':
                break
        process.send_signal(number)
        printed, _ = process.communicate(timeout=120)
    report = json.loads(printed)
    assert process.returncode == 130 and report['rows']
    assert report['notes'][-1] == 'not all was measured: interrupted'
    assert 'x_copy' in report['rows'][0] and 'goals' in report['rows'][0]


# Says on stderr when there is a row, and then gives a signal a minute to come.
PRINTING_PROGRESS = '''
import contextlib, signal, sys, time
from qvlmem.__main__ import main
from qvlmem.commands import terminal
@contextlib.contextmanager
def one_step(description, total):
    def advance():
        print('advanced', file=sys.stderr, flush=True)
        time.sleep(60)
    yield advance
terminal.one_step = one_step
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.exit(main(sys.argv[1:]))
'''


def test_speedups_are_against_one_thread():
    row = {'condition': 'warm', 'isa': 'avx2', 'dtype': 'float32', 'bytes': 64 << 20, 'case': 'fp16',
           'direction': 'encode', 'x_copy': 0.7, 'rivals': {}}

    def two_threads(copy_ms):
        rows = [row | {'threads': threads, 'ms': ms, 'copy_ms': copy}
                for threads, ms, copy in ((1, 4.0, 3.0), (2, 2.5, copy_ms))]
        judgement.judge(rows, on_gpu=False)
        return rows

    single, double = two_threads(copy_ms=1.5)
    assert (double['x_one_thread'], double['copy_x_one_thread']) == (1.6, 2.0) and 'x_one_thread' not in single
    assert double['goals'] == [{'goal': 'x one thread >= 1.7', 'met': False}]
    # Where the copy gains little, nothing is asked for.
    assert two_threads(copy_ms=2.0)[1]['goals'] == []


def test_sizes_are_told_in_binary_units():
    assert [figure_tables.size_text(size) for size in (4096, 64 << 20, 1 << 30)] == ['4 KiB', '64 MiB', '1 GiB']
