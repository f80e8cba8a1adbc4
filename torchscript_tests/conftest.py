# SPDX-License-Identifier: Apache-2.0
"""Loads the library as a file and nothing else: no Python package of it is imported here.

QVLMEM_LIBRARY   the libqvlmem.so under test (default: build/lib/libqvlmem.so of this tree)
"""

import os
import pathlib

import pytest
import torch

LIBRARY = os.environ.get('QVLMEM_LIBRARY') or str(
    pathlib.Path(__file__).resolve().parent.parent / 'build' / 'lib' / 'libqvlmem.so')
torch.ops.load_library(LIBRARY)


def pytest_configure(config):
    # That newer releases deprecate TorchScript is known.
    for category in ('DeprecationWarning', 'FutureWarning'):
        config.addinivalue_line('filterwarnings', f'ignore:.*torch.jit.*:{category}')


@pytest.fixture
def library():
    return LIBRARY
