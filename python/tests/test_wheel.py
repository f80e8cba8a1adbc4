# SPDX-License-Identifier: Apache-2.0
"""The wheel, around the library that is under test: what it holds, and that it works elsewhere.

That pip compiles the library itself is not tried here: it is the same CMake project, and takes minutes.
"""

import pathlib
import re
import subprocess
import sys
import sysconfig
import zipfile

import pytest
import torch

import user_examples

pytestmark = pytest.mark.cuda

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*command, **options):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory, library_path):
    pytest.importorskip('scikit_build_core', reason='needs scikit-build-core to build a wheel')
    build = pathlib.Path(library_path).resolve().parents[1]
    if not (build / 'cmake_install.cmake').is_file():
        pytest.skip(f'needs a library in its build folder; {library_path} is not')
    folder = tmp_path_factory.mktemp('wheel')
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', folder,
        '-C', f'cmake.define.QVLMEM_PREBUILT={build}', '-C', f'build-dir={folder / "build"}', ROOT)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def fresh_python(wheel, tmp_path_factory):
    """A virtual environment with PyTorch, as it is installed here, and the wheel."""
    folder = tmp_path_factory.mktemp('venv')
    run(sys.executable, '-m', 'venv', '--without-pip', folder)
    python = folder / 'bin' / 'python'
    site = pathlib.Path(run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', wheel)
    # As a line of a .pth file: that folder's own .pth files, which know this checkout, are not read.
    (site / 'torch.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return python


def test_it_holds_the_package_and_the_library(wheel):
    version = re.search(r'project\(qvlmem VERSION ([0-9.]+)', (ROOT / 'CMakeLists.txt').read_text()).group(1)
    assert wheel.name == f'qvlmem-{version}-py3-none-linux_x86_64.whl'
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f'qvlmem-{version}.dist-info/METADATA').decode()
    modules = {path.name for path in (ROOT / 'python').glob('*.py')}
    assert modules <= names and modules
    assert {'qvlmem/__init__.py', 'qvlmem/py.typed', 'qvlmem/lib/libqvlmem.so',
            'qvlmem/lib/libqvlmem.json', 'qvlmem/data/digit_reader/model.safetensors'} <= names
    assert f'qvlmem-{version}.dist-info/licenses/LICENSE' in names
    assert {name.split('/')[0] for name in names} == {'qvlmem', f'qvlmem-{version}.dist-info'} | modules
    running = torch.__version__.split('+')[0]
    assert f'Requires-Dist: torch=={running}\n' in metadata
    assert 'License-Expression: Apache-2.0\n' in metadata
    assert 'Requires-Python: <3.14,>=3.10\n' in metadata


def test_the_library_names_no_folder_of_this_machine(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract('qvlmem/lib/libqvlmem.so', tmp_path)
    dynamic = run('readelf', '--dynamic', '--wide', library)
    assert 'RPATH' not in dynamic and 'RUNPATH' not in dynamic
    needed = re.findall(r'NEEDED.*\[(.*)\]', dynamic)
    assert 'libtorch_cpu.so' in needed and all('/' not in name for name in needed)


def test_the_library_shows_its_interface_alone(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract('qvlmem/lib/libqvlmem.so', tmp_path)
    # Weak symbols aside: what PyTorch's headers instantiate.
    symbols = [line.split(maxsplit=2) for line in run(
        'nm', '--dynamic', '--demangle', '--defined-only', library).splitlines()]
    strong = [name for _, kind, name in symbols if kind in 'TDBR']
    assert any(name.startswith('qvlmem::compress(') for name in strong)
    assert [name for name in strong if not re.match(r'qvlmem(::|_)|(typeinfo|vtable).* for qvlmem::', name)] == []


def test_it_works_in_another_place(fresh_python, tmp_path):
    script = '''
import pathlib, qvlmem, torch
assert pathlib.Path(qvlmem.library_path()).parent == pathlib.Path(qvlmem.__file__).parent / 'lib'
x = torch.randn(37, 129)
c = qvlmem.compress(x, max_error=0.01)
y = qvlmem.decompress(qvlmem.unpack(qvlmem.pack(c)))
assert (x - y).norm() <= 0.01 * x.norm() and c.nbytes() < x.nbytes
print(qvlmem.__file__)
'''
    environment = {'PATH': '/usr/bin:/bin'}
    where = run(fresh_python, '-c', script, cwd=tmp_path, env=environment).strip()
    assert pathlib.Path(where).is_relative_to(fresh_python.parents[1])


@pytest.mark.parametrize('examples', [
    pytest.param(user_examples.CLASSES, id='classes'),
    pytest.param([user_examples.INTEGRATED], id='integrated'),
    pytest.param([user_examples.EVERYTHING], id='everything'),
])
def test_the_examples_of_users_run_as_they_are(fresh_python, tmp_path, examples):
    script = tmp_path / 'example.py'
    code = user_examples.BEFORE + ''.join(code + check for code, check in examples)
    script.write_text(code, encoding='utf-8')
    printed = run(fresh_python, script, cwd=tmp_path, encoding='utf-8',
                  env={'PATH': '/usr/bin:/bin', 'PYTHONIOENCODING': 'utf-8'})
    if user_examples.INTEGRATED in examples:
        saved = re.fullmatch('Mem\u00f3ria economizada: ([0-9]+\\.[0-9]{2}) MB\n', printed)
        # Of Q, K and V of 6 MiB each and weights of 48, at an error of 1 %.
        assert 40 < float(saved.group(1)) < 66
