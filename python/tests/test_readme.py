# SPDX-License-Identifier: Apache-2.0
"""The Python of the READMEs runs as it stands, one block after the other."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip('transformers')

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('name', ['README.md', 'README.pt-BR.md'])
def test_its_python_runs(name, library_path, tmp_path):
    blocks = re.findall(r'^```python\n(.*?)^```', (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    code = '\n'.join(blocks).replace('build/lib/libqvlmem.so', library_path)
    # TorchScript reads the source of what it compiles: from a file.
    (tmp_path / 'blocks.py').write_text(code.replace("'data/digit_reader'", repr(str(ROOT / 'data/digit_reader'))))
    environment = os.environ | {'QVLMEM_LIBRARY': library_path, 'PYTHONPATH': str(ROOT / 'python')}
    result = subprocess.run([sys.executable, tmp_path / 'blocks.py'], env=environment, cwd=tmp_path,
                            capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
