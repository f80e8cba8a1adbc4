# SPDX-License-Identifier: Apache-2.0
"""What a type checker, an editor and help() know of the package: annotations and docstrings."""

import inspect
import pathlib
import typing

import pytest
import torch

import qvlmem
from qvlmem import hardware, statistics

# Beside what the package names: what its functions take and give.
PUBLIC = [getattr(qvlmem, name) for name in qvlmem.__all__] + [
    statistics.Statistics, hardware.configuration, hardware.this_machine]


def callables():
    for value in PUBLIC:
        if not inspect.isclass(value):
            yield value.__qualname__, value
            continue
        yield value.__qualname__, value
        for name, member in inspect.getmembers(value):
            module = getattr(member, '__module__', '') or ''
            if not name.startswith('_') and inspect.isfunction(member) and module.startswith('qvlmem'):
                yield member.__qualname__, member


@pytest.mark.parametrize('value', [pytest.param(value, id=name) for name, value in callables()])
def test_everything_public_is_annotated_and_documented(value):
    assert inspect.getdoc(value)
    function = value.__init__ if inspect.isclass(value) else value
    if function is object.__init__ or getattr(value, '_is_protocol', False):
        return
    hints = typing.get_type_hints(function)
    assert set(inspect.signature(function).parameters) - {'self'} == set(hints) - {'return'}
    assert 'return' in hints


def test_the_package_says_that_it_is_typed():
    assert (pathlib.Path(qvlmem.__file__).parent / 'py.typed').is_file()


def test_the_protocols_are_what_the_classes_have():
    c = qvlmem.compress(torch.randn(8, 8))
    assert isinstance(c, qvlmem.CompressedTensor)
    assert not isinstance(torch.ones(3), qvlmem.CompressedTensor)
    pool = qvlmem.IntegratedMemoryOptimizer({}).pools['temporary']
    for value, protocol in ((c, qvlmem.CompressedTensor), (pool, qvlmem._types.MemoryPool)):
        public = {name for name, member in vars(protocol).items()
                  if not name.startswith('_') and inspect.isfunction(member)}
        assert public == {name for name in value._method_names() if not name.startswith('_')}


def test_statistics_are_annotated_by_the_names_that_there_are():
    counts = qvlmem.MemoryCompressionManager().get_compression_stats()
    assert set(statistics.Statistics.__annotations__) == set(counts)
