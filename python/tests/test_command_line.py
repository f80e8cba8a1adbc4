# SPDX-License-Identifier: Apache-2.0
"""`python -m qvlmem` itself, and its doctor."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

import qvlmem
from qvlmem.__main__ import COMMANDS, main
from qvlmem.commands import doctor, run

PACKAGE = pathlib.Path(qvlmem.__file__).parents[1]


def command(library, *arguments):
    environment = os.environ | {'QVLMEM_LIBRARY': str(library), 'PYTHONPATH': str(PACKAGE)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True,
                          text=True, timeout=300)


@pytest.mark.parametrize('arguments', [['--help'], *([name, '--help'] for name in COMMANDS)])
def test_help_is_everywhere(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 0
    assert 'Exit codes: 0 done, 1 failed, 2 wrong usage.' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [[], ['dance'], ['doctor', 'dance']])
def test_wrong_usage_exits_with_2(arguments):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2


@pytest.mark.parametrize('error, code, said', [
    (KeyboardInterrupt(), 130, 'interrupted'),
    (MemoryError('no room'), 1, 'out of memory: no room'),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, 'out of memory')])
def test_a_command_that_is_stopped_says_so(error, code, said, capsys, monkeypatch):
    def stop(options):
        raise error
    monkeypatch.setattr(run, 'measure', stop)
    assert main(['run', '--json']) == code
    printed = capsys.readouterr()
    assert printed.out == '' and said in printed.err and printed.err.count('\n') == 1


def test_an_error_of_ours_keeps_its_traceback(monkeypatch):
    def stop(options):
        raise RuntimeError('a defect')
    monkeypatch.setattr(run, 'measure', stop)
    with pytest.raises(RuntimeError, match='a defect'):
        main(['run'])


def test_doctor_knows_this_machine(library_path, capsys):
    code = main(['doctor', '--json'])
    report = json.loads(capsys.readouterr().out)
    assert code == (1 if report['missing'] else 0)
    assert report['library']['loads']
    assert report['versions']['torch'] == torch.__version__
    assert report['cpu']['isa'] in report['cpu']['isa_supported']
    assert report['memory_available_bytes'] > 1 << 20


def test_doctor_prints_what_it_found(capsys):
    main(['doctor'])
    printed = capsys.readouterr().out
    assert torch.__version__ in printed and qvlmem.library_path() in printed


CPUINFO = 'model name\t: Some CPU\nflags\t\t: fpu {}\n\nmodel name\t: Some CPU\n'
AVX2, AVX512 = 'avx2 fma bmi2 pclmulqdq f16c', 'avx512f avx512bw avx512dq avx512vl avx512cd'


@pytest.mark.parametrize('flags, named, expected', [
    (f'{AVX2} {AVX512}', None, 'avx512'), (f'{AVX2} {AVX512}', 'avx2', 'avx2'),
    (f'{AVX2} {AVX512}', 'sse9', 'avx512'), (AVX2, None, 'avx2'), (AVX2, 'avx512', 'avx2'),
    (AVX512, None, 'portable'), ('sse2', None, 'portable'), (AVX2, 'portable', 'portable')])
def test_the_isa_is_what_the_kernels_take(flags, named, expected, tmp_path, monkeypatch):
    (tmp_path / 'cpuinfo').write_text(CPUINFO.format(flags))
    monkeypatch.delenv('QVLMEM_ISA', raising=False)
    if named:
        monkeypatch.setenv('QVLMEM_ISA', named)
    found = doctor.cpu(tmp_path)
    assert found['isa'] == expected and found['model'] == 'Some CPU'


def test_a_missing_library_is_what_doctor_reports(tmp_path):
    path = tmp_path / 'libqvlmem.so'
    asked = command(path, '-m', 'qvlmem', 'doctor', '--json')
    assert asked.returncode == 1 and asked.stderr == ''
    report = json.loads(asked.stdout)
    assert not report['library']['loads']
    assert any(str(path) in line and 'tools/build' in line for line in report['missing'])


def test_a_missing_library_stops_an_import(tmp_path):
    asked = command(tmp_path / 'libqvlmem.so', '-c', 'import qvlmem')
    assert asked.returncode == 1 and 'ImportError: qvlmem: there is no library at' in asked.stderr


def test_a_missing_library_stops_run_without_a_traceback(tmp_path):
    asked = command(tmp_path / 'libqvlmem.so', '-m', 'qvlmem', 'run')
    assert asked.returncode == 1 and asked.stdout == ''
    assert asked.stderr.startswith('qvlmem run: error: qvlmem: there is no library at')
    assert asked.stderr.count('\n') == 1
