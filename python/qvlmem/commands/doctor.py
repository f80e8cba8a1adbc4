# SPDX-License-Identifier: Apache-2.0
"""What this machine has for qvlmem: versions, instruction set, memory, GPU, and what is missing."""

import importlib.metadata
import os
import pathlib
import platform
import re

import torch

import qvlmem
from qvlmem._library import built_for
from qvlmem.commands import terminal
from qvlmem.models import machine

SUMMARY = 'what this machine has, and what is missing'
# What the commands use beside PyTorch, and for what.
PACKAGES = {
    'transformers': 'run: Qwen3-VL',
    'torchvision': "run: Qwen3-VL's image processor",
    'pillow': 'run: photographs',
    'scikit-image': 'run: the default photograph',
    'scikit-learn': 'run: pages of digits',
    'matplotlib': 'report: pictures',
    'numpy': 'run',
    'rich': 'tables and progress bars',
}
# What a kernel compiled for each needs of the CPU, best first (kernels/base/isa.cpp).
ISA_FLAGS = {
    'avx512': {'avx512f', 'avx512bw', 'avx512dq', 'avx512vl', 'avx512cd'},
    'avx2': {'avx2', 'fma', 'bmi2', 'pclmulqdq', 'f16c'},
}


def add_arguments(parser):
    parser.add_argument('--json', action='store_true', help='print one JSON document and no table')


def main(options, parser):
    report = examine()
    if options.json:
        terminal.print_json(report)
    else:
        print_report(report, terminal.output_console())
    return 1 if report['missing'] else 0


def examine(proc=pathlib.Path('/proc')):
    """The figures as plain data; `missing` lists in words what a user has to do something about."""
    report = {
        'versions': {'python': platform.python_version(), 'torch': torch.__version__},
        'library': {'path': qvlmem.library_path(), 'loads': True,
                    'cuda': built_for(pathlib.Path(qvlmem.library_path())).get('cuda')},
        'cpu': cpu(proc),
        'memory_available_bytes': machine.available_memory(),
        'gpus': [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        'missing': [],
    }
    try:
        report['versions'] = {'qvlmem': importlib.metadata.version('qvlmem')} | report['versions']
    except importlib.metadata.PackageNotFoundError:
        pass  # run from a checkout, which has no version of its own
    try:
        qvlmem.load_library()
    except ImportError as error:
        report['library']['loads'] = False
        report['missing'].append(str(error))
    for name, purpose in PACKAGES.items():
        try:
            report['versions'][name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            report['versions'][name] = None
            report['missing'].append(f'{name} is not installed ({purpose}); tools/build installs it')
    return report


def cpu(proc):
    """Model, cores, and the instruction set that the kernels take here."""
    info = (proc / 'cpuinfo').read_text()
    found = {key: re.search(rf'^{key}\s*: (.*)$', info, re.MULTILINE)
             for key in ('model name', 'flags')}
    flags = set(found['flags'].group(1).split()) if found['flags'] else set()
    has = [isa for isa, needed in ISA_FLAGS.items() if needed | ISA_FLAGS['avx2'] <= flags]
    named = os.environ.get('QVLMEM_ISA')
    return {
        'model': found['model name'].group(1) if found['model name'] else platform.machine(),
        'cores': len(os.sched_getaffinity(0)),
        'threads': torch.get_num_threads(),
        'isa': named if named in [*has, 'portable'] else (has or ['portable'])[0],
        'isa_supported': [*has, 'portable'],
    }


def print_report(report, console):
    table = terminal.new_table('', 'what', 'this machine', text=('this machine',), show_header=False)
    for name, version in report['versions'].items():
        table.add_row(name, version or 'missing')
    library, processor = report['library'], report['cpu']
    table.add_row('library', library['path'] + ('' if library['loads'] else ' (does not load)'))
    table.add_row('CPU', f"{processor['model']}, {processor['cores']} cores, "
                  f"{processor['threads']} PyTorch threads")
    table.add_row('instruction set', f"{processor['isa']} (of {', '.join(processor['isa_supported'])})")
    table.add_row('memory available', f"{report['memory_available_bytes'] / 2**30:.1f} GiB")
    table.add_row('CUDA kernels', f"built with CUDA {library['cuda']}" if library['cuda'] else 'none in this library')
    table.add_row('GPUs', ', '.join(report['gpus']) or 'none that PyTorch can use')
    console.print(table)
    for line in report['missing'] or ['nothing is missing']:
        terminal.print_lines(console, ('missing: ' if report['missing'] else '') + line)
