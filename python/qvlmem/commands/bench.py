# SPDX-License-Identifier: Apache-2.0
"""Measures every codec beside a copy of as many bytes, what PyTorch has instead, and other packages.

All of it in interleaved rounds, so that what else the machine does hits all alike. warm is with freed memory that
is used again, cold with glibc's defaults, where every large output is mapped afresh. tools/bench makes the
environment with the other packages and names it here; docs/benchmarks.md says how to read the figures.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import re
import signal

import torch

import qvlmem
from qvlmem._library import built_for
from qvlmem.benchmarks import conditions, figure_tables, judgement, worker
from qvlmem.benchmarks.cases import STORED
from qvlmem.commands import EXIT_INTERRUPTED, CommandError, doctor, terminal

SUMMARY = 'how fast the codecs are, beside a copy and others'
UNITS = {'b': 1, 'kib': 1 << 10, 'mib': 1 << 20, 'gib': 1 << 30}
DTYPES = {'fp32': 'float32', 'bf16': 'bfloat16', 'fp16': 'float16'}
SMALLEST, LARGEST = 4 << 10, 4 << 30


def list_of(convert):
    """For argparse: comma-separated values, in order and each once."""
    def parse(text):
        return list(dict.fromkeys(convert(part.strip()) for part in text.split(',')))
    return parse


def one_of(names):
    def parse(text):
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got '{text}'")
        return text
    return parse


def size(text):
    match = re.fullmatch(r'(\d+)\s*(b|kib|mib|gib)', text.lower())
    count = int(match[1]) * UNITS[match[2]] if match else 0
    if not SMALLEST <= count <= LARGEST or count % 1024:
        raise argparse.ArgumentTypeError(f"expected a size of 4KiB to 4GiB such as 64MiB, got '{text}'")
    return count


def thread_count(text):
    cores = len(os.sched_getaffinity(0))
    if text == 'all':
        return cores
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= cores:
        raise argparse.ArgumentTypeError(f"expected 1 to {cores} or all, got '{text}'")
    return int(text)


def positive(text):
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got '{text}'")
    return int(text)


def picture_path(text):
    path = pathlib.Path(text)
    if path.suffix not in ('.svg', '.png'):
        raise argparse.ArgumentTypeError(f"expected a name that ends in .svg or .png, got '{text}'")
    return path


def add_arguments(parser):
    parser.add_argument('--sizes', type=list_of(size), default='4KiB,1MiB,64MiB',
                        help='bytes of a tensor, 4KiB to 4GiB (default: %(default)s)')
    parser.add_argument('--dtypes', type=list_of(one_of(DTYPES)), default='fp32,bf16,fp16',
                        help='(default: %(default)s)')
    parser.add_argument('--threads', type=list_of(thread_count), default='1,all', help='(default: %(default)s)')
    parser.add_argument('--conditions', type=list_of(one_of(conditions.CONDITIONS)), default='warm,cold',
                        help='(default: %(default)s)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu',
                        help='where the tensors are; cuda: the current GPU, once, whatever --threads, '
                        '--conditions, --isa and --clock say (default: cpu)')
    parser.add_argument('--isa', type=list_of(one_of(('avx512', 'avx2', 'portable'))), default=[],
                        help='instruction sets for the kernels to use (default: the best)')
    parser.add_argument('--repeats', type=positive, default=9, help='rounds (default: %(default)s)')
    parser.add_argument('--clock', choices=('wall', 'cpu'), default='wall',
                        help='cpu: CPU time, with one thread, for a busy machine (default: wall)')
    parser.add_argument('--peers', metavar='DIR', type=pathlib.Path,
                        help='the virtual environment with other packages (default: none are measured)')
    parser.add_argument('--weights', metavar='FILE', type=pathlib.Path,
                        help="a model's weights, safetensors (default: those in the environment of --peers)")
    parser.add_argument('--activations', metavar='FILE', type=pathlib.Path,
                        help="a model's hidden_states and key_values, safetensors; tools/bench makes one of SmolLM2's "
                        '(default: none are measured)')
    parser.add_argument('--picture', metavar='FILE', type=picture_path,
                        help='draw the largest size against the limit, as .svg or .png')
    output = parser.add_mutually_exclusive_group()
    output.add_argument('--json', action='store_true', help='print one JSON document and no table')
    output.add_argument('--markdown', action='store_true', help='print a page of Markdown with the tables')


def main(options, parser):
    if options.device == 'cuda':
        options.threads, options.conditions, options.isa, options.clock = [1], ['warm'], [], 'gpu'
    if options.clock == 'cpu' and options.threads != [1]:
        parser.error('--clock cpu adds up what threads take: add --threads 1')
    if options.picture and importlib.util.find_spec('matplotlib') is None:
        raise CommandError("--picture needs matplotlib, which is not installed; pip install 'qvlmem[run]' installs it")
    try:
        qvlmem.load_library()
    except ImportError as error:
        raise CommandError(error) from None
    report, code = measure(options)
    if options.json:
        terminal.print_json(report)
    elif options.markdown:
        print(figure_tables.markdown(report, options.picture))
    else:
        print_report(report, terminal.output_console(width_of_files=160))
    if options.picture:
        from qvlmem.benchmarks import roofline
        try:
            roofline.draw(report, options.picture)
        except OSError as error:
            raise CommandError(f'cannot write {options.picture}: {error.strerror}') from None
    return code


@contextlib.contextmanager
def interrupted_by(number):
    """Has a signal do what Ctrl-C does."""
    def interrupt(*unused):
        raise KeyboardInterrupt
    before = signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.signal(number, before)


def measure(options):
    """The figures of all conditions as plain data (machine, settings, notes, rows), and the exit code.

    Where it is interrupted, or a measuring process fails: those that were measured until then, if there are any.
    """
    processor = gpu() if options.device == 'cuda' else doctor.cpu(pathlib.Path('/proc'))
    for isa in options.isa:
        if isa not in processor['isa_supported']:
            raise CommandError(f'--isa {isa}: this CPU lacks it')
    settings = {
        'sizes': sorted(options.sizes), 'dtypes': [DTYPES[name] for name in options.dtypes],
        'threads': options.threads, 'repeats': options.repeats, 'clock': options.clock, 'device': options.device,
        'peers': options.peers and str(options.peers), 'weights': options.weights or weights_of(options.peers),
        'activations': options.activations,
    }
    notes = [] if options.peers else ['no other packages measured: --peers names no environment; tools/bench makes one']
    for option in ('weights', 'activations'):
        if settings[option]:
            settings[option] = str(settings[option])
            check_file(option, settings[option])
        else:
            notes.append(f"no {'model weights' if option == 'weights' else option} measured: there is no --{option}")
    rows, code, loads = [], 0, [os.getloadavg()[0]]
    isas = options.isa or [None]
    try:
        with interrupted_by(signal.SIGTERM):
            for condition, isa in [(condition, isa) for isa in isas for condition in options.conditions]:
                run_one(settings | {'first_isa': isa == isas[0]}, condition, isa, isa or processor['isa'], rows, notes)
    except (KeyboardInterrupt, CommandError) as error:
        if not rows:
            raise
        code = EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        notes.append(f"not all was measured: {str(error) or 'interrupted'}")
    loads.append(os.getloadavg()[0])
    judgement.judge(rows, on_gpu=options.device == 'cuda')
    return {
        'machine': {'model': processor['model'], 'cores': processor['cores'], 'load_average': loads,
                    'torch': torch.__version__},
        'settings': settings, 'notes': notes, 'rows': rows,
    }, code


def check_file(option, path):
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, 'pt') as file:
            names = set(file.keys())
    except FileNotFoundError:
        raise CommandError(f'--{option}: there is no file {path}') from None
    except (OSError, SafetensorError) as error:
        raise CommandError(f'--{option}: {path} is no safetensors file: {error}') from None
    missing = [name for name, source in STORED.items() if source == option and name not in names]
    if option == 'activations' and missing:
        raise CommandError(f"--{option}: {path} has no {' and no '.join(missing)}")


def gpu():
    """What doctor.cpu gives, of the current GPU."""
    if not built_for(pathlib.Path(qvlmem.library_path())).get('cuda'):
        raise CommandError('--device cuda: this library was built without CUDA; tools/build --cuda builds one with')
    if not torch.cuda.is_available():
        raise CommandError('--device cuda: there is no GPU that PyTorch can use')
    name = torch.cuda.get_device_name()
    return {'model': name, 'cores': torch.cuda.get_device_properties().multi_processor_count, 'isa': name,
            'isa_supported': []}


def weights_of(peers):
    """The weights that a package in the peers' environment brings, or None."""
    return next(iter(sorted(peers.glob('lib/python*/site-packages/*/model/model.safetensors'))), None) if peers else None


def run_one(settings, condition, isa, isa_name, rows, notes):
    with terminal.one_step(f'{condition}, {isa_name}', worker.row_count(settings)) as advance:
        def listen(document):
            if 'row' in document:
                rows.append({'condition': condition, 'isa': isa_name} | document['row'])
                advance()
            elif document['note'] not in notes:
                notes.append(document['note'])
        conditions.run(settings, condition, isa, listen)


def print_report(report, console):
    terminal.print_lines(console, *figure_tables.machine_lines(report), '')
    for title, rows in figure_tables.grouped(report['rows']):
        table = terminal.new_table(title, *figure_tables.COLUMNS, text=('goal', 'others'))
        for row in rows:
            table.add_row(*figure_tables.cells(row, others=2))
        console.print(table)
        console.print()
