# SPDX-License-Identifier: Apache-2.0
"""Finds libqvlmem.so and loads it, or says why it cannot be loaded."""

import json
import os
import pathlib

import torch


def library_path() -> str:
    """The path of libqvlmem.so: what the variable QVLMEM_LIBRARY names, else the one in this package."""
    named = os.environ.get('QVLMEM_LIBRARY')
    return named or str(pathlib.Path(__file__).parent / 'lib' / 'libqvlmem.so')


def built_for(path):
    """What the library was built for: `torch`, its version, and `cuda`, that of its CUDA kernels; what is known of it."""
    try:
        return json.loads(path.with_suffix('.json').read_text())
    except (OSError, ValueError):
        return {}


def load_library() -> None:
    """Loads the library. ImportError where it is missing or was built for another PyTorch."""
    path = pathlib.Path(library_path())
    if not path.is_file():
        raise ImportError(f'qvlmem: there is no library at {path}; tools/build makes it, '
                          'or set QVLMEM_LIBRARY to its path')
    wanted = built_for(path)
    expected, running = wanted.get('torch'), torch.__version__.split('+')[0]
    if expected is not None and expected != running:
        raise ImportError(f'qvlmem: {path} was built for PyTorch {expected}, but PyTorch {running} is '
                          'imported; build it for that one, or install the one it expects')
    # A runtime serves all of its major version.
    expected, running = wanted.get('cuda'), torch.version.cuda
    if expected is not None and expected.split('.')[0] != (running or '').split('.')[0]:
        raise ImportError(f'qvlmem: {path} was built with CUDA {expected}, but the PyTorch that is imported '
                          f'{"has CUDA " + running if running else "is without CUDA"}; '
                          'build it for that one, or install the one it expects')
    try:
        torch.ops.load_library(str(path))
    except SystemError as error:  # how an error inside a library's loading arrives
        raise ImportError(str(error.__cause__ or error)) from error
    except OSError as error:
        raise ImportError(f'qvlmem: {path} does not load: {error}') from error
