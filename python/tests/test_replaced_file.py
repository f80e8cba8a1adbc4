# SPDX-License-Identifier: Apache-2.0
"""A file that save replaces: whole, old or new, whatever happens on the way."""

import errno
import os
import pathlib
import signal
import stat
import subprocess
import sys
import textwrap

import pytest
import torch

import qvlmem

OLD, NEW = {'w': torch.arange(1000)}, {'w': torch.randn(64, 1024), 'x': torch.randn(64, 1024)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'model.qvlm'
    qvlmem.save(OLD, path)
    return path


def assert_old(path):
    assert torch.equal(qvlmem.load(path)['w'], OLD['w'])
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize('call', ['fsync', 'fchmod', 'replace'])
@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left on device'), KeyboardInterrupt(),
                                   MemoryError()], ids=lambda e: type(e).__name__)
def test_a_failure_leaves_the_old_file_and_nothing_else(path, monkeypatch, call, error):
    def fail(*_):
        raise error
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)) as raised:
        qvlmem.save(NEW, path)
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(path)
    assert_old(path)


def test_an_interrupt_between_two_tensors_leaves_the_old_file(path, monkeypatch):
    from qvlmem._frame_file import FrameFileWriter
    add = FrameFileWriter.add

    def interrupted(self, *arguments, **options):
        number = add(self, *arguments, **options)
        if number == 1:
            raise KeyboardInterrupt
        return number
    monkeypatch.setattr(FrameFileWriter, 'add', interrupted)
    with pytest.raises(KeyboardInterrupt):
        qvlmem.save(NEW, path)
    assert_old(path)


def in_another_process(script, path, **options):
    script = 'import os, resource, signal, sys, torch, qvlmem\npath = sys.argv[1]\n' + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, '-c', script, path], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize('limit', [1, 4096, 100_000, 300_000])
def test_a_file_that_may_not_grow_leaves_the_old_one(path, limit):
    process = in_another_process(f'''
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            qvlmem.save({{'w': torch.randn(64, 1024), 'x': torch.randn(64, 1024)}}, path)
        except OSError as error:
            print(error.errno, error.filename)
    ''', path)
    out, err = process.communicate(timeout=300)
    assert out == f'{errno.EFBIG} {path}\n', err
    assert_old(path)


def test_a_full_disk_leaves_the_old_file():
    """On a file system of 256 KiB, in a mount namespace of its own."""
    script = '''
import errno, os, sys, torch, qvlmem
path = sys.argv[1] + '/model.qvlm'
qvlmem.save({'w': torch.arange(1000)}, path)
try:
    qvlmem.save({'w': torch.randn(64, 1024), 'x': torch.randn(64, 1024)}, path)
except OSError as error:
    assert error.errno == errno.ENOSPC and error.filename == path, error
    assert torch.equal(qvlmem.load(path)['w'], torch.arange(1000))
    print(os.listdir(sys.argv[1]))
'''
    mounted = 'd=$(mktemp -d) && mount -t tmpfs -o size=256k tmpfs "$d" && '
    if subprocess.run(['unshare', '-rm', 'sh', '-c', mounted + 'rmdir "$d" 2>/dev/null; umount "$d"; rmdir "$d"'],
                      capture_output=True, check=False).returncode != 0:
        pytest.skip('needs unshare and a tmpfs of its own')
    command = mounted + f'{sys.executable} -c "$SCRIPT" "$d"; code=$?; umount "$d"; rmdir "$d"; exit $code'
    result = subprocess.run(['unshare', '-rm', 'sh', '-c', command], capture_output=True, text=True, check=False,
                            env=os.environ | {'SCRIPT': script})
    assert result.stdout == "['model.qvlm']\n", result.stderr[-2000:]


@pytest.mark.parametrize('call', ['write', 'fsync', 'replace'])
def test_a_killed_process_leaves_the_old_file(path, call):
    process = in_another_process(f'''
        def stop(*_):
            print('there', flush=True)
            signal.pause()
        if {call!r} == 'write':
            from qvlmem._frame_file import FrameFileWriter
            FrameFileWriter.finish = stop
        else:
            os.{call} = stop
        qvlmem.save({{'w': torch.randn(64, 1024), 'x': torch.randn(64, 1024)}}, path)
    ''', path)
    with process:
        assert process.stdout.readline() == 'there\n', process.communicate()[1]
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert torch.equal(qvlmem.load(path)['w'], OLD['w'])
    left = [name for name in os.listdir(path.parent) if name != path.name]
    assert len(left) == 1 and left[0].startswith('.qvlmem-') and left[0].endswith('.part')
    qvlmem.save(NEW, path)  # what was left is in nobody's way
    assert torch.equal(qvlmem.load(path)['x'], NEW['x'])


def test_what_is_replaced_keeps_its_permissions_and_a_link_stays_one(path):
    os.chmod(path, 0o600)
    link = path.parent / 'link'
    link.symlink_to(path.name)
    qvlmem.save(NEW, link)
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert torch.equal(qvlmem.load(path)['w'], NEW['w'])


def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        qvlmem.save(OLD, tmp_path / 'new')
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'new').stat().st_mode) == 0o640


def test_where_no_file_can_be(tmp_path):
    (tmp_path / 'file').write_text('text')
    os.mkfifo(tmp_path / 'fifo')
    for name, error in (('', IsADirectoryError), ('missing/x', FileNotFoundError), ('file/x', NotADirectoryError),
                        ('fifo', OSError), ('x' * 300, OSError)):
        path = tmp_path / name
        for use in (lambda: qvlmem.save(OLD, path), lambda: qvlmem.load(path)):
            with pytest.raises(error) as raised:
                use()
            assert pathlib.Path(raised.value.filename) == path
    assert sorted(os.listdir(tmp_path)) == ['fifo', 'file']


@pytest.mark.parametrize('convert', [str, os.fsencode, pathlib.Path])
def test_kinds_of_paths(tmp_path, convert, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / 'a', pathlib.Path('relative')):
        qvlmem.save(OLD, convert(path))
        assert torch.equal(qvlmem.load(convert(path))['w'], OLD['w'])
