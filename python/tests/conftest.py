# SPDX-License-Identifier: Apache-2.0
"""Loads the library once and sets up Hypothesis.

QVLMEM_LIBRARY      the libqvlmem.so under test (default: the one that `import qvlmem` finds)
QVLMEM_EXAMPLES     examples a property (default 40, the same ones every time)
"""

import os

import hypothesis
import pytest
import torch

import qvlmem  # noqa: F401  (loads the library and its fake kernels)
from cuda_device import OpsOn, add_markers, device, pytest_generate_tests  # noqa: F401  (fixture and hook)

_EXAMPLES = int(os.environ.get('QVLMEM_EXAMPLES', '40'))

# Derandomized, so that a run says something about the code and not about its luck; a longer search
# is QVLMEM_EXAMPLES=1000, which draws at random.
hypothesis.settings.register_profile(
    'qvlmem',
    max_examples=_EXAMPLES,
    derandomize='QVLMEM_EXAMPLES' not in os.environ,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large,
                           hypothesis.HealthCheck.filter_too_much,
                           hypothesis.HealthCheck.function_scoped_fixture])
hypothesis.settings.load_profile('qvlmem')


def pytest_configure(config):
    config.addinivalue_line('filterwarnings', 'ignore:B?Complex(Half|32) support is experimental')
    config.addinivalue_line('filterwarnings', 'ignore:torch.quantize_per_tensor')
    add_markers(config)


@pytest.fixture(autouse=True)
def _fixed_random_numbers():
    torch.manual_seed(0)


@pytest.fixture
def ops(device):
    """The operators under test, of tensors on the CPU; on another device OpsOn takes them there."""
    return torch.ops.qvlmem if device == 'cpu' else OpsOn(device)


@pytest.fixture(scope='session')
def library_path():
    """The file that is loaded in this process."""
    return os.environ.get('QVLMEM_LIBRARY') or str(qvlmem.library_path())


@pytest.fixture
def threads():
    """Sets PyTorch's thread count for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
