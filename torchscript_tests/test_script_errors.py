# SPDX-License-Identifier: Apache-2.0
"""Bad input, eager and from TorchScript: the error names op or class, argument, what is accepted and what
came. TorchScript raises everything as RuntimeError, with the same words."""

from typing import List

import pytest
import torch
from torch import Tensor

from script_programs import swapped

CompressedTensor = torch.classes.qvlmem.CompressedTensor
CODECS = ['auto', 'none', 'int8', 'int4', 'fp16', 'bounded', 'svd', 'sparse', 'lossless']


def raises(error, *words):
    """The error with a message that has each of the words."""
    return pytest.raises(error, match='^' + ''.join(f'(?=(?s:.*)(?:{w}))' for w in words))


def unknown_method(x: Tensor) -> int:
    return torch.ops.qvlmem.compress(x, 'zip').nbytes()


def unknown_method_of_a_manager(x: Tensor) -> int:
    return torch.classes.qvlmem.CompressionManager('').compress_tensor(x, 'zip').nbytes()


def unknown_method_in_a_config(x: Tensor) -> int:
    return len(torch.classes.qvlmem.CompressionManager('method:zip').config())


def unknown_key_in_a_config(x: Tensor) -> int:
    return len(torch.classes.qvlmem.CompressionManager('colour:red').config())


def unknown_key_in_a_cache_config(x: Tensor) -> int:
    manager = torch.classes.qvlmem.CompressionManager('')
    return len(torch.classes.qvlmem.HierarchicalCache(manager, 'colour:red').keys())


def bad_value_in_a_pool_config(x: Tensor) -> int:
    return len(torch.classes.qvlmem.MemoryPool('weights', 'cpu_budget:much').stats())


def bad_value_to_configure(x: Tensor):
    torch.ops.qvlmem.configure('bound:rows')


def unknown_pool_kind(x: Tensor) -> int:
    return len(torch.classes.qvlmem.MemoryPool('disk', '').stats())


def negative_size(x: Tensor) -> Tensor:
    return torch.classes.qvlmem.MemoryPool('weights', '').empty([3, -4], torch.float32)


def missing_key(x: Tensor) -> Tensor:
    cache = torch.classes.qvlmem.HierarchicalCache(torch.classes.qvlmem.CompressionManager(''), '')
    cache.put('here', x)
    return cache.get('not here')


def tier_of_a_missing_key(x: Tensor) -> str:
    cache = torch.classes.qvlmem.HierarchicalCache(torch.classes.qvlmem.CompressionManager(''), '')
    return cache.tier_of('not here')


def too_large_for_the_cache(x: Tensor):
    manager = torch.classes.qvlmem.CompressionManager('method:none')
    torch.classes.qvlmem.HierarchicalCache(manager, 'cpu_budget:7').put('x', x)


def no_disk_tier(x: Tensor) -> int:
    manager = torch.classes.qvlmem.CompressionManager('')
    return len(torch.classes.qvlmem.HierarchicalCache(manager, 'spill_dir:/nowhere').keys())


def not_finite(x: Tensor) -> int:
    return torch.ops.qvlmem.compress(x / 0.0, 'int8').nbytes()


def wrong_dtype(x: Tensor) -> Tensor:
    return torch.ops.qvlmem.quantize(x.long())[0]


def damaged_frame(x: Tensor) -> Tensor:
    frame = torch.ops.qvlmem.pack(torch.ops.qvlmem.compress(x))
    frame[-1] += 1
    return torch.ops.qvlmem.decompress(torch.ops.qvlmem.unpack(frame))


PROGRAMS = [
    (unknown_method, ValueError, ['qvlmem::compress: expected method', 'zip', *CODECS]),
    (unknown_method_of_a_manager, ValueError, ['qvlmem::compress: expected method', 'zip', *CODECS]),
    (unknown_method_in_a_config, ValueError,
     ['qvlmem::CompressionManager: config: ', "'method'", "'zip'", *CODECS]),
    (unknown_key_in_a_config, ValueError,
     ['qvlmem::CompressionManager: config: ', "'colour'", "'red'", 'accepted: cpu_budget, .*threads']),
    (unknown_key_in_a_cache_config, ValueError, ['qvlmem::HierarchicalCache: config: ', "'colour'"]),
    (bad_value_in_a_pool_config, ValueError,
     ['qvlmem::MemoryPool: config: ', "'cpu_budget'", "'much'", 'accepted: bytes']),
    (bad_value_to_configure, ValueError,
     ['qvlmem::configure: conf: ', "'bound'", "'rows'", 'accepted: one of tensor, row, element']),
    (unknown_pool_kind, ValueError,
     ['qvlmem::MemoryPool: expected kind', 'weights, activations, kv_cache, image_features, temporary',
      "got 'disk'"]),
    (negative_size, ValueError, ['qvlmem::MemoryPool.empty: expected shape', r'got \[3, -4\]']),
    (missing_key, IndexError, ['qvlmem::HierarchicalCache.get: expected a key', "got 'not here'"]),
    (tier_of_a_missing_key, IndexError, ['qvlmem::HierarchicalCache.tier_of: ', "got 'not here'"]),
    (too_large_for_the_cache, torch.OutOfMemoryError,
     ['qvlmem::HierarchicalCache.put: ', "key 'x'", 'cpu_budget 7', 'got 24']),
    (no_disk_tier, NotImplementedError, ['qvlmem::HierarchicalCache: expected no spill_dir', '/nowhere']),
    (not_finite, ValueError,
     ['qvlmem::compress: expected x to be finite', 'got 6 values', r'\[0, 0\]', 'lossless']),
    (wrong_dtype, TypeError,
     ['qvlmem::quantize: expected x to be float32, float16 or bfloat16', 'got int64']),
    (damaged_frame, ValueError, ['qvlmem::unpack: ', 'checksum']),
]


@pytest.mark.parametrize(('program', 'error', 'words'), PROGRAMS, ids=[p[0].__name__ for p in PROGRAMS])
def test_bad_input_is_refused_with_the_same_words(program, error, words):
    x = torch.ones(2, 3)
    with raises(error, *words):
        program(x)
    scripted = torch.jit.script(program)
    for _ in range(3):  # the words stay when the executor has compiled again
        with raises(RuntimeError, *words):
            scripted(x)


def pool_as_a_compressed_tensor(pool: torch.classes.qvlmem.MemoryPool) -> Tensor:
    return torch.ops.qvlmem.decompress(pool)


def integer_as_a_compressed_tensor(number: int) -> Tensor:
    return torch.ops.qvlmem.pack(number)


def nothing_as_a_tensor() -> int:
    return torch.ops.qvlmem.compress(None).nbytes()


def pool_as_a_manager(pool: torch.classes.qvlmem.MemoryPool) -> List[str]:
    return torch.classes.qvlmem.HierarchicalCache(pool, '').keys()


def integer_as_a_key(cache: torch.classes.qvlmem.HierarchicalCache, x: Tensor):
    cache.put(3, x)


def no_such_method(cache: torch.classes.qvlmem.HierarchicalCache):
    cache.push('key')


def no_such_operator(x: Tensor) -> Tensor:
    return torch.ops.qvlmem.zip(x)


@pytest.mark.parametrize(('program', 'words'), [
    (pool_as_a_compressed_tensor, ['qvlmem::decompress', "argument 'c'", 'CompressedTensor', 'MemoryPool']),
    (integer_as_a_compressed_tensor, ['qvlmem::pack', "argument 'c'", 'CompressedTensor', 'int']),
    (nothing_as_a_tensor, ['qvlmem::compress', "argument 'x'", 'Tensor', 'NoneType']),
    (pool_as_a_manager, ['__init__', "argument 'manager'", 'CompressionManager', 'MemoryPool']),
    (integer_as_a_key, ['put', "argument 'key'", 'str', 'int']),
    (no_such_method, ['HierarchicalCache', 'push']),
    (no_such_operator, ['qvlmem', 'zip']),
], ids=lambda value: getattr(value, '__name__', ''))
def test_wrong_types_are_refused_when_a_script_is_compiled(program, words):
    with raises((RuntimeError, AttributeError), *words):
        torch.jit.script(program)


@pytest.mark.parametrize('op', ['decompress', 'pack'])
def test_wrong_types_are_refused_in_eager_mode(op):
    call = getattr(torch.ops.qvlmem, op)
    with raises(TypeError, f'qvlmem::{op}: expected c to be a CompressedTensor, got .*MemoryPool'):
        call(torch.classes.qvlmem.MemoryPool('weights'))
    for wrong in (3, None, torch.ones(3)):
        with raises(RuntimeError, f'qvlmem::{op}', "argument 'c'", 'CompressedTensor',
                    type(wrong).__name__):
            call(wrong)


def test_wrong_types_are_refused_when_a_script_is_called():
    scripted = torch.jit.script(swapped)
    c = torch.ops.qvlmem.compress(torch.ones(3))
    for wrong in (3, None, torch.ones(3)):
        with raises(RuntimeError, 'swapped', "argument 'b'", 'CompressedTensor', type(wrong).__name__):
            scripted(c, wrong, True)


@pytest.mark.parametrize('op', ['quantize', 'dequantize', 'to_fp16', 'from_fp16', 'svd',
                                'svd_reconstruct', 'sparsify', 'densify', 'lossless_encode',
                                'lossless_decode', 'profile_values', 'profile', 'compress', 'unpack'])
def test_none_is_no_tensor(op):
    call = getattr(torch.ops.qvlmem, op)
    schema = call.default._schema
    arguments = [None if str(a.type) == 'Tensor' else [3] if a.name == 'shape' else torch.float32
                 for a in schema.arguments if not a.has_default_value()]
    with raises(TypeError, f'qvlmem::{op}: expected {schema.arguments[0].name} to be a tensor, got None'):
        call(*arguments)


def test_objects_take_no_none():
    manager = torch.classes.qvlmem.CompressionManager()
    cache = torch.classes.qvlmem.HierarchicalCache(manager)
    for call in (lambda: manager.compress_tensor(None), lambda: cache.put('key', None)):
        with raises(TypeError, 'qvlmem::compress: expected x to be a tensor, got None'):
            call()
    assert list(cache.keys()) == []
