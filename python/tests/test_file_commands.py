# SPDX-License-Identifier: Apache-2.0
"""`python -m qvlmem compress`, `decompress` and `inspect`."""

import errno
import json
import os
import resource
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import qvlmem
from qvlmem.__main__ import main
from strategies import row_error, same_bits, values

TENSORS = {'w.bias': torch.arange(5, dtype=torch.int16), 'w': values('outliers', (40, 129), torch.float32),
           'flag': torch.tensor([True, False, True]), 'z': values('normal', (300, 64), torch.float32).bfloat16(),
           'none': torch.empty(0, 4), 'scalar': torch.tensor(2.5, dtype=torch.float64),
           '[red]name\n\x1b[31m': torch.ones(3), 'f8': torch.ones(7).to(torch.float8_e4m3fn)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    save_file(TENSORS, tmp_path / 'model.safetensors', {'format': 'pt', 'by': 'a test'})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def figures(capsys, *arguments):
    assert main([*map(str, arguments), '--json']) == 0
    printed = capsys.readouterr()
    assert printed.err == ''
    return json.loads(printed.out)


def failure(capsys, *arguments):
    """The one line that it says."""
    assert main([*map(str, arguments)]) == 1
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.count('\n') == 1 and 'Traceback' not in printed.err
    return printed.err.removeprefix(f'qvlmem {arguments[0]}: error: ').rstrip('\n')


def test_there_and_back_keeps_every_bit_every_name_and_the_metadata(folder, capsys):
    written = figures(capsys, 'compress', 'model.safetensors')
    assert written['output'] == 'model.qvlm' and written['tensors'] == len(TENSORS) and written['worst_error'] == 0
    assert written['bytes_before'] == sum(x.nbytes for x in TENSORS.values())
    assert written['bytes_after'] == os.path.getsize('model.qvlm')
    assert written['ratio'] == written['bytes_before'] / written['bytes_after'] > 1
    assert sum(written['codecs'].values()) == len(TENSORS)
    loaded = qvlmem.load('model.qvlm')
    assert all(same_bits(loaded[name], x) for name, x in TENSORS.items()) and len(loaded) == len(TENSORS)
    back = figures(capsys, 'decompress', 'model.qvlm', '-o', 'back.safetensors')
    assert back['tensors'] == len(TENSORS) and back['bytes_after'] == os.path.getsize('back.safetensors')
    again = load_file('back.safetensors')
    assert all(same_bits(again[name], x) for name, x in TENSORS.items()) and len(again) == len(TENSORS)
    with safe_open('back.safetensors', 'pt') as file:
        assert file.metadata() == {'format': 'pt', 'by': 'a test'}
    assert sorted(os.listdir()) == ['back.safetensors', 'model.qvlm', 'model.safetensors']


def test_qvlmem_load_reads_what_safetensors_writes_and_the_other_way_round(folder, capsys):
    loaded = qvlmem.load('model.safetensors')
    assert all(same_bits(loaded[name], x) for name, x in TENSORS.items()) and len(loaded) == len(TENSORS)
    qvlmem.save(TENSORS, 'saved.qvlm')
    figures(capsys, 'decompress', 'saved.qvlm')
    assert all(same_bits(x, TENSORS[name]) for name, x in load_file('saved.safetensors').items())
    # Each tensor lies where one of its dtype may: other readers map the file.
    data = (folder / 'saved.safetensors').read_bytes()
    length = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:8 + length])
    assert all((8 + length + header[name]['data_offsets'][0]) % x.itemsize == 0 for name, x in TENSORS.items())


def test_a_bound_holds_and_is_reported(folder, capsys):
    written = figures(capsys, 'compress', 'model.safetensors', '--max-error', '0.02', '-o', 'lossy')
    loaded = qvlmem.load('lossy')
    error = max(row_error(TENSORS[name], loaded[name]) for name in ('w', 'z'))
    assert 0 < error <= 0.02 and written['bound'] == 'row'
    assert written['worst_error'] == pytest.approx(error, rel=1e-4)
    assert same_bits(loaded['w.bias'], TENSORS['w.bias']) and same_bits(loaded['scalar'], TENSORS['scalar'])
    seen = figures(capsys, 'inspect', 'lossy')
    assert max(row['worst_row_error'] for row in seen['tensors']) == written['worst_error']
    assert written['bytes_after'] < figures(capsys, 'compress', 'model.safetensors')['bytes_after']


def test_inspect_says_what_there_is(folder, capsys):
    c = qvlmem.compress(TENSORS['w'], 'int8')
    qvlmem.save({'w': TENSORS['z'], 'tied': TENSORS['z'], 'held': c}, 'some.qvlm')
    seen = figures(capsys, 'inspect', 'some.qvlm')
    plain, held = seen['tensors']
    assert seen['kind'] == 'qvlmem' and seen['file_bytes'] == os.path.getsize('some.qvlm')
    assert plain['names'] == ['w', 'tied'] and plain['dtype'] == 'bfloat16' and plain['shape'] == [300, 64]
    assert plain['bytes_before'] == TENSORS['z'].nbytes and plain['worst_row_error'] == 0
    assert not plain['compressed'] and held['compressed'] and held['method'] == 'int8'
    assert held['bytes_after'] == qvlmem.pack(c).numel() and held['relative_error'] == c.relative_error()
    assert seen['total']['bytes_after'] == plain['bytes_after'] + held['bytes_after']
    (folder / 'frame').write_bytes(qvlmem.pack(c).numpy().tobytes())
    frame = figures(capsys, 'inspect', 'frame')
    assert frame['kind'] == 'frame' and frame['tensors'] == [held | {'names': []}]
    names = [row['names'] for row in figures(capsys, 'inspect', 'model.safetensors')['tensors']]
    assert sorted(names) == sorted([name] for name in TENSORS)


def test_what_is_printed_for_people(folder, capsys):
    assert main(['compress', 'model.safetensors']) == 0
    assert 'model.qvlm: 8 tensors' in capsys.readouterr().out
    assert main(['inspect', 'model.qvlm']) == 0
    printed = capsys.readouterr().out
    assert 'a file of frames' in printed and 'by: a test' in printed and 'lossless' in printed
    assert '[red]name\\n\\x1b[31m' in printed and '\x1b' not in printed  # no markup, no escape of the file's own
    assert main(['decompress', 'model.qvlm', '-o', 'x']) == 0
    assert 'x: 8 tensors' in capsys.readouterr().out
    assert main(['inspect', 'model.safetensors']) == 0
    assert 'a safetensors file' in capsys.readouterr().out


def test_recompressing_keeps_what_was_held_compressed(folder, capsys):
    c = qvlmem.compress(TENSORS['w'], 'int4')
    qvlmem.save({'c': c, 'x': TENSORS['z'], 'tied': TENSORS['z']}, 'a.qvlm', method='none')
    figures(capsys, 'compress', 'a.qvlm', '-o', 'b.qvlm', '--prefer', 'size')
    loaded = qvlmem.load('b.qvlm')
    assert torch.equal(qvlmem.pack(loaded['c']), qvlmem.pack(c)) and same_bits(loaded['x'], TENSORS['z'])
    assert loaded['x'].data_ptr() == loaded['tied'].data_ptr()
    assert os.path.getsize('b.qvlm') < os.path.getsize('a.qvlm')
    figures(capsys, 'decompress', 'b.qvlm')
    written = load_file('b.safetensors')
    assert same_bits(written['c'], qvlmem.decompress(c)) and same_bits(written['tied'], TENSORS['z'])


def test_a_value_without_a_name_gets_one(folder, capsys):
    for value in (TENSORS['w'], qvlmem.compress(TENSORS['w'], 'none')):
        qvlmem.save(value, 'value.qvlm')
        figures(capsys, 'decompress', 'value.qvlm', '--force')
        assert same_bits(load_file('value.safetensors')['tensor'], TENSORS['w'])


def test_what_exists_is_replaced_only_on_demand(folder, capsys):
    (folder / 'model.qvlm').write_text('mine')
    assert failure(capsys, 'compress', 'model.safetensors') == (
        'model.qvlm exists; --force replaces it, -o OUT writes elsewhere')
    assert (folder / 'model.qvlm').read_text() == 'mine'
    figures(capsys, 'compress', 'model.safetensors', '--force')
    assert 'exists' in failure(capsys, 'decompress', 'model.qvlm')
    figures(capsys, 'compress', 'model.qvlm', '--force')  # over itself
    assert same_bits(qvlmem.load('model.qvlm')['w'], TENSORS['w'])


@pytest.mark.parametrize('command', ['compress', 'decompress', 'inspect'])
def test_bad_input_is_one_line(folder, command, capsys):
    (folder / 'text').write_text('no tensors in here')
    qvlmem.save(TENSORS, 'good.qvlm')
    (folder / 'cut').write_bytes((folder / 'good.qvlm').read_bytes()[:-1])
    (folder / 'sub.d').mkdir()
    for name, said in (('missing', 'missing: No such file or directory'), ('sub.d', 'sub.d: Is a directory'),
                       ('text', 'text is not a safetensors file'), ('cut', 'cut is damaged: it is cut short'),
                       ('text/x', 'text/x: Not a directory')):
        assert failure(capsys, command, name).startswith(said)
    assert sorted(os.listdir()) == ['cut', 'good.qvlm', 'model.safetensors', 'sub.d', 'text']


def test_a_damaged_tensor_is_named_and_the_others_are_shown(folder, capsys):
    qvlmem.save({'a': torch.zeros(100), 'b': torch.ones(100), 'c': torch.ones(3)}, 'good.qvlm', method='none')
    data = bytearray((folder / 'good.qvlm').read_bytes())
    data[64 + 200] ^= 1
    (folder / 'bad.qvlm').write_bytes(data)
    assert main(['inspect', 'bad.qvlm', '--json']) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("qvlmem inspect: error: bad.qvlm: tensor 'a' is damaged: ")
    assert [bool(row['damage']) for row in json.loads(printed.out)['tensors']] == [True, False, False]
    for command in ('compress', 'decompress'):
        assert failure(capsys, command, 'bad.qvlm', '-o', 'out').startswith("bad.qvlm: tensor 'a' is damaged: ")
    assert not os.path.exists('out')


def test_values_that_a_method_refuses_are_named(folder, capsys):
    save_file({'fine': torch.ones(3), 'bad': torch.tensor([float('inf')])}, 'inf.safetensors')
    said = failure(capsys, 'compress', 'inf.safetensors', '--method', 'int8')
    assert said.startswith("inf.safetensors: tensor 'bad': ") and 'infinite' in said


def test_what_safetensors_cannot_hold(folder, capsys):
    qvlmem.save({'z': torch.ones(3, dtype=torch.complex128)}, 'z.qvlm')
    assert "tensor 'z' cannot be stored as safetensors" in failure(capsys, 'decompress', 'z.qvlm')
    qvlmem.save({'__metadata__': torch.ones(3)}, 'm.qvlm')
    assert "tensor '__metadata__' cannot be stored" in failure(capsys, 'decompress', 'm.qvlm')
    assert 'is a safetensors file already' in failure(capsys, 'decompress', 'model.safetensors', '-o', 'x')


@pytest.mark.parametrize('arguments', [
    ['compress'], ['compress', 'x', '--max-error', '2'], ['compress', 'x', '--method', 'zip'], ['inspect'],
    ['compress', 'x', '--bound', 'all'], ['compress', 'x', 'y'], ['decompress', 'x', '--max-error', '0.1']])
def test_wrong_usage_exits_with_2(arguments):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2


def run_limited(folder, limit, *arguments):
    return subprocess.run(
        [sys.executable, '-m', 'qvlmem', *arguments], capture_output=True, text=True, timeout=300, cwd=folder,
        check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))


def test_a_target_that_cannot_be_written_is_one_line(folder):
    for arguments in (['compress', 'model.safetensors', '-o', 'missing/x'],
                      ['compress', 'model.safetensors', '-o', 'full']):
        result = run_limited(folder, 5000, *arguments)
        reason = os.strerror(errno.ENOENT if 'missing/x' in arguments else errno.EFBIG)
        assert result.stderr == f'qvlmem compress: error: {arguments[-1]}: {reason}\n'
        assert result.returncode == 1 and result.stdout == ''
    assert os.listdir(folder) == ['model.safetensors']


# How far the peak exceeds what the same process took after the same command for next to nothing, in tensors.
PEAK = '''
import sys
from qvlmem.__main__ import main
def memory(name):
    return next(int(line.split()[1]) / 8192 for line in open('/proc/self/status') if line.startswith(name))
command, *options = sys.argv[1:]
suffix = '.qvlm' if command != 'compress' else '.safetensors'
assert main([command, 'small' + suffix, *options]) == 0
before = memory('VmRSS')
assert main([command, 'large' + suffix, *options]) == 0
print(memory('VmHWM') - before)
'''


def test_the_commands_take_the_memory_of_a_few_tensors(folder):
    """24 tensors of 8 MiB each, there and back."""
    save_file({str(i): torch.randn(2048, 2048).bfloat16() for i in range(24)}, 'large.safetensors')
    save_file({'x': torch.randn(256, 256).bfloat16()}, 'small.safetensors')
    for arguments in (['compress'], ['decompress', '--force'], ['inspect']):
        # glibc gives back at once what is above a threshold that stays where it is.
        result = subprocess.run([sys.executable, '-c', PEAK, *arguments], capture_output=True, text=True, check=False,
                                env=os.environ | {'MALLOC_MMAP_THRESHOLD_': str(1 << 20)})
        assert result.returncode == 0, result.stderr
        assert 0.5 < float(result.stdout.split()[-1]) < 8, arguments
