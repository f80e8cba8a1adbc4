# SPDX-License-Identifier: Apache-2.0
"""Loads the library as a file and nothing else: no Python package of it is imported here.

QVLMEM_LIBRARY   the libqvlmem.so under test (default: build/lib/libqvlmem.so of this tree)
"""

import os
import pathlib
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'python' / 'tests'))

from cuda_device import add_markers, device, pytest_generate_tests  # noqa: E402, F401  (fixture and hook)

LIBRARY = os.environ.get('QVLMEM_LIBRARY') or str(
    pathlib.Path(__file__).resolve().parent.parent / 'build' / 'lib' / 'libqvlmem.so')
torch.ops.load_library(LIBRARY)


def pytest_configure(config):
    # That newer releases deprecate TorchScript is known.
    for category in ('DeprecationWarning', 'FutureWarning'):
        config.addinivalue_line('filterwarnings', f'ignore:.*torch.jit.*:{category}')
    add_markers(config)


@pytest.fixture
def library():
    return LIBRARY
