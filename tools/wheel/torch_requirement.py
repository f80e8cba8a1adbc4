# SPDX-License-Identifier: Apache-2.0
"""What the wheel requires: the PyTorch that its library is built for, and no other.

A provider of dynamic metadata, which pyproject.toml names.
"""

import importlib.metadata


def dynamic_metadata(_settings, _project):
    try:
        version = importlib.metadata.version('torch')
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit('qvlmem: a wheel is built for the PyTorch that is installed, and there is none here; '
                         'install it, then: pip install --no-build-isolation .') from None
    return {'dependencies': ['torch==' + version.split('+')[0]]}


def dynamic_wheel(_settings):
    """What may differ between the source distribution and a wheel of it."""
    return {'dependencies': True}
