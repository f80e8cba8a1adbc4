# SPDX-License-Identifier: Apache-2.0
"""Bad input: the type of the error, and a message that names op, argument, expected and got.

What only one codec can refuse is in that codec's own test file.
"""

import math

import pytest
import torch

pytestmark = [pytest.mark.each_device, pytest.mark.cuda]

TEN = torch.ones(2, 5)
EYE = torch.eye(4)


def raises(error, *words):
    """The error with a message that has each of the words."""
    return pytest.raises(error, match='^' + ''.join(f'(?=(?s:.*)(?:{w}))' for w in words))


# (op, arguments, the words after "qvlmem::OP: "), for dtypes that the op does not take.
WRONG_DTYPES = [
    ('quantize', (TEN.long(),), ('expected x', 'float32', 'float16', 'bfloat16', 'got', 'int64')),
    ('quantize', (TEN.double(),), ('expected x', 'got', 'float64')),
    ('quantize', (TEN.to(torch.complex64),), ('expected x', 'got', 'complex64')),
    ('to_fp16', (TEN.int(),), ('expected x', 'float64', 'got', 'int32')),
    ('from_fp16', (TEN, torch.ones(1)), ('expected half', 'float16', 'got', 'float32')),
    ('from_fp16', (TEN.half(), torch.ones(1, dtype=torch.int32)), ('expected scale', 'got', 'int32')),
    ('svd', (TEN.bool(),), ('expected x', 'got', 'bool')),
    ('svd', (TEN.double(),), ('expected x', 'got', 'float64')),
    ('sparsify', (TEN.short(),), ('expected x', 'got', 'int16')),
    ('profile_values', (TEN.long(),), ('expected x', 'got', 'int64')),
    ('profile', (TEN.long(),), ('expected x', 'got', 'int64')),
    ('densify', (torch.zeros(1), torch.ones(1), [3]), ('expected indices', 'int', 'got', 'float32')),
    ('lossless_decode', (TEN, [2, 5], torch.float32), ('expected bytes', 'uint8', 'got', 'float32')),
    ('unpack', (TEN,), ('expected frame', 'uint8', 'got', 'float32')),
    ('compress', (TEN.long(), 'int8'), ('expected x', 'int8', 'got', 'int64')),
]


@pytest.mark.parametrize(('op', 'arguments', 'words'), WRONG_DTYPES,
                         ids=[f'{i}-{w[0]}' for i, w in enumerate(WRONG_DTYPES)])
def test_wrong_dtypes_are_type_errors(ops, op, arguments, words):
    with raises(TypeError, f'qvlmem::{op}: ', *words):
        getattr(ops, op)(*arguments)


def test_the_form_of_a_message(ops):
    with pytest.raises(TypeError) as caught:
        ops.quantize(torch.ones(3, 5, dtype=torch.int64))
    assert str(caught.value).startswith(
        'qvlmem::quantize: expected x to be float32, float16 or bfloat16, '
        'got int64 with shape [3, 5]')


BAD_VALUES = [
    ('compress', {'x': TEN, 'method': 'zip'},
     ('method', 'auto', 'none', 'int8', 'int4', 'fp16', 'bounded', 'svd', 'sparse', 'lossless', 'zip')),
    ('compress', {'x': TEN, 'method': ''}, ('method', 'auto')),
    ('compress', {'x': TEN, 'method': 'INT8'}, ('method', 'int8', 'INT8')),
    ('compress', {'x': TEN, 'bound': 'rows'}, ('bound', 'tensor', 'row', 'element', 'rows')),
    ('compress', {'x': TEN, 'max_error': -0.1}, ('max_error', '-0.1')),
    ('compress', {'x': TEN, 'max_error': math.nan}, ('max_error', 'nan')),
    ('compress', {'x': TEN, 'method': 'bounded', 'max_error': -1.0}, ('max_error', '-1')),
    ('compress', {'x': TEN, 'method': 'bounded', 'bound': 'all'}, ('bound', 'all')),
    ('compress', {'x': TEN, 'method': 'int8', 'group_size': -2}, ('group_size', '-2')),
    ('compress', {'x': TEN, 'method': 'svd', 'adaptive_rank': False, 'compression_ratio': 0.0},
     ('compression_ratio', '0')),
    ('compress', {'x': TEN, 'method': 'svd', 'adaptive_rank': False, 'compression_ratio': 1.5},
     ('compression_ratio', '1.5')),
    ('compress', {'x': TEN, 'method': 'sparse', 'sparsity_threshold': 1.25},
     ('sparsity_threshold', '1.25')),
    ('compress', {'x': TEN, 'method': 'sparse', 'sparsity_threshold': math.nan},
     ('sparsity_threshold', 'nan')),
    ('quantize', {'x': TEN, 'bits': 3}, ('expected bits', '4', '8', 'got 3')),
    ('quantize', {'x': TEN, 'group_size': -7}, ('expected group_size', 'got -7')),
    ('sparsify', {'x': TEN, 'sparsity_threshold': -0.5}, ('sparsity_threshold', '-0.5')),
    ('svd', {'x': EYE, 'energy': 0.0}, ('energy', '0')),
    ('svd', {'x': EYE, 'energy': 1.01}, ('energy', '1.01')),
    ('svd', {'x': EYE, 'energy': math.nan}, ('energy', 'nan')),
    ('svd', {'x': EYE, 'adaptive_rank': False, 'compression_ratio': -1.0},
     ('compression_ratio', '-1')),
    ('svd', {'x': EYE, 'rank': 0}, ('rank', 'got 0')),
    ('svd', {'x': EYE, 'rank': 5}, ('rank', '4', 'got 5')),
    ('svd', {'x': EYE, 'rank': -1}, ('rank', 'got -1')),
    ('svd_reconstruct', {'u': torch.ones(4, 2), 'v': torch.ones(3, 4), 'shape': [4, 4]}, ('got',)),
    ('svd_reconstruct', {'u': torch.ones(4, 2), 'v': torch.ones(2, 4), 'shape': [4, 5]},
     ('shape', 'got')),
    ('lossless_encode', {'x': TEN, 'level': 0}, ('expected level', '1', '2', 'got 0')),
    ('lossless_encode', {'x': TEN, 'level': 3}, ('expected level', '1', '2', 'got 3')),
    ('from_fp16', {'half': TEN.half(), 'scale': torch.ones(2)}, ('expected scale', 'got')),
    ('densify', {'indices': torch.tensor([0, 9]), 'values': torch.ones(2), 'shape': [3, 3]},
     ('indices', '9')),
    ('densify', {'indices': torch.tensor([-1, 0]), 'values': torch.ones(2), 'shape': [9]},
     ('indices', '-1')),
    ('densify', {'indices': torch.tensor([0, 1, 2]), 'values': torch.ones(2), 'shape': [9]},
     ('values', 'got')),
    ('densify', {'indices': torch.tensor([1, 0]), 'values': torch.ones(2), 'shape': [9]},
     ('indices', 'sorted|increasing')),
    ('densify', {'indices': torch.tensor([1, 1]), 'values': torch.ones(2), 'shape': [9]},
     ('indices',)),
    ('densify', {'indices': torch.tensor([1]), 'values': torch.ones(1), 'shape': [2**62, 4]},
     ('shape', 'got')),
]


@pytest.mark.parametrize(('op', 'arguments', 'words'), BAD_VALUES,
                         ids=[f'{i}-{b[0]}' for i, b in enumerate(BAD_VALUES)])
def test_bad_values_are_value_errors(ops, op, arguments, words):
    with raises(ValueError, f'qvlmem::{op}: ', 'expected', *words):
        getattr(ops, op)(**arguments)


@pytest.mark.parametrize('op', ['quantize', 'to_fp16', 'svd', 'sparsify', 'lossless_encode',
                                'profile_values', 'profile', 'compress'])
def test_other_layouts_and_devices_are_errors(ops, op):
    """No kernel for them, no crash, no wrong answer."""
    for x in (torch.eye(3).to_sparse(),
              torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)):
        with raises((NotImplementedError, TypeError), f'qvlmem::{op}: expected x to be', 'got'):
            getattr(ops, op)(x)


def test_a_tensor_without_values_cannot_be_compressed(ops):
    with pytest.raises(NotImplementedError):
        ops.compress(torch.ones(3, 5, device='meta'))


@pytest.mark.parametrize(('conf', 'words'), [
    ('colour:red', ('colour', "'red'|colour:red", 'cpu_budget', 'cuda_budget', 'spill_limit',
                    'spill_dir', 'persist', 'max_error', 'bound', 'method', 'prefer', 'policy', 'io',
                    'threads')),
    ('bound:rows', ('bound', 'rows', 'tensor', 'row', 'element')),
    ('method:zip', ('method', 'zip', 'auto', 'lossless')),
    ('prefer:small', ('prefer', 'small', 'size', 'balanced', 'speed')),
    ('policy:fifo', ('policy', 'fifo', 'cost', 'lru', 'gdsf', 's3fifo')),
    ('io:mmap', ('io', 'mmap', 'uring', 'threads')),
    ('persist:maybe', ('persist', 'maybe', 'true', 'false')),
    ('max_error:much', ('max_error', 'much')),
    ('max_error:-1', ('max_error', '-1')),
    ('max_error:nan', ('max_error', 'nan')),
    ('max_error:', ('max_error',)),
    ('threads:-2', ('threads', '-2')),
    ('threads:two', ('threads', 'two')),
    ('cpu_budget:12XiB', ('cpu_budget', '12XiB')),
    ('cpu_budget:-1', ('cpu_budget', '-1')),
    ('cpu_budget:99999999999GiB', ('cpu_budget', '99999999999GiB')),
    ('cuda_budget:1.5', ('cuda_budget', '1.5')),
    ('spill_limit:1 MiB x', ('spill_limit', '1 MiB x')),
    ('cpu_budget', ('cpu_budget',)),
    ('max_error:0.1;bound:row', ('max_error', '0.1;bound:row')),
    ('max_error:0.1,colour:red', ('colour',)),
    (':', ()),
])
def test_configuration_errors_name_key_value_and_what_is_accepted(ops, conf, words):
    with raises(ValueError, 'qvlmem::configure: ', *words):
        ops.configure(conf)


def test_configuration_accepts_every_documented_value(ops):
    for conf in ('cpu_budget:1048576', 'cpu_budget:64MiB', 'cpu_budget:2GiB,cuda_budget:512KiB',
                 'spill_limit:0.8', 'cpu_budget:1.0', 'persist:true', 'persist:false',
                 'max_error:0', 'max_error:1e-3', 'bound:row', 'bound:element', 'bound:tensor',
                 'method:int8', 'method:auto', 'prefer:balanced', 'prefer:speed', 'prefer:size',
                 'policy:lru', 'policy:gdsf', 'policy:s3fifo', 'policy:cost', 'io:threads',
                 'io:uring', 'threads:2', 'threads:0',
                 'max_error:0.01,bound:tensor,method:auto,prefer:size,policy:cost'):
        assert ops.configure(conf) is None


def test_a_refused_configuration_changes_nothing(ops):
    x = torch.randn(64, 64)
    want = ops.pack(ops.compress(x))
    with pytest.raises(ValueError, match='colour'):
        ops.configure('method:none,max_error:0,colour:red')
    assert torch.equal(ops.pack(ops.compress(x)), want)
