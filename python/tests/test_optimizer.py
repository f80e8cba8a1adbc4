# SPDX-License-Identifier: Apache-2.0
"""IntegratedMemoryOptimizer: attention from compressed parts, and what is said about its errors."""

import gc
import threading

import pytest
import torch
from torch.nn import functional

import integrated_memory_compression_demo as demo
import qvlmem
from strategies import ERRORS, FLOATS
from test_compress import METHODS

SIZES = {'batch_size': 2, 'seq_len': 48, 'hidden_dim': 96, 'num_heads': 3}
SHAPE = [2, 3, 48, 32]
PARTS = ('query', 'key', 'value', 'attention_weights')
# Of one call with SIZES: three parts, and the weights, in float32.
PART_BYTES = 2 * 3 * 48 * 32 * 4
WEIGHTS_BYTES = 2 * 3 * 48 * 48 * 4


def attend(optimizer=None, **arguments):
    optimizer = optimizer or qvlmem.IntegratedMemoryOptimizer({})
    return optimizer.optimize_attention_mechanism(**{**SIZES, **arguments})


def some_inputs(dtype=torch.float32, shape=SHAPE, scale=1.0):
    return {name: (scale * torch.randn(shape)).to(dtype) for name in ('query', 'key', 'value')}


def exact_attention(query, key, value):
    y = functional.scaled_dot_product_attention(query.double(), key.double(), value.double())
    return y.transpose(1, 2).flatten(2)


def configured(conf):
    """An optimizer whose configuration has `conf` over the process's, for the keys that no hardware sets."""
    torch.ops.qvlmem.configure(conf)
    optimizer = qvlmem.IntegratedMemoryOptimizer({})
    torch.ops.qvlmem.configure('max_error:0.01,bound:tensor,method:auto')
    return optimizer


def test_it_has_its_old_name_too():
    assert demo.IntegratedMemoryOptimizer is qvlmem.IntegratedMemoryOptimizer


def test_shapes_and_names():
    result = attend()
    assert set(result) == {*PARTS, 'output', 'components'}
    assert set(result['components']) == {*PARTS, 'output'}
    for name in ('query', 'key', 'value'):
        assert list(result[name].shape) == SHAPE
    assert list(result['attention_weights'].shape) == [2, 3, 48, 48]
    assert list(result['output'].shape) == [2, 48, 96]
    for component in result['components'].values():
        assert component['method'] in METHODS
        assert component['ratio'] == component['bytes_before'] / component['bytes_after']
        assert component['error'] == component['relative_error']


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('shape', [[1, 1, 1, 1], [2, 3, 48, 32], [1, 2, 129, 72], [3, 1, 700, 8]], ids=str)
def test_the_output_is_the_attention_of_what_is_returned(dtype, shape):
    inputs = some_inputs(dtype, shape)
    result = attend(**inputs, **like(shape))
    rounding = 4 * torch.finfo(dtype).eps
    weights = torch.softmax(result['query'].double() @ result['key'].double().mT / shape[-1]**0.5, -1)
    returned = result['attention_weights'].double()
    # They are what the codec made of it: within its error, and the rounding of what went in.
    bound = result['components']['attention_weights']['relative_error'] + rounding
    assert (returned - weights).norm() <= bound * weights.norm()
    output = (returned @ result['value'].double()).transpose(1, 2).flatten(2)
    torch.testing.assert_close(result['output'].double(), output, rtol=rounding, atol=rounding)
    for tensor in (*(result[name] for name in PARTS), result['output']):
        assert tensor.dtype == dtype


def like(shape):
    batch, heads, seq, head_dim = shape
    return {'batch_size': batch, 'num_heads': heads, 'seq_len': seq, 'hidden_dim': heads * head_dim}


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
@pytest.mark.parametrize('bound', tuple(ERRORS))
@pytest.mark.parametrize('max_error', [0.001, 0.02])
def test_every_error_is_measured_and_the_bound_is_kept(dtype, bound, max_error):
    inputs = some_inputs(dtype)
    result = attend(configured(f'max_error:{max_error},bound:{bound}'), **inputs)
    exact = exact_attention(**inputs)
    names = {'tensor': 'relative_error', 'row': 'worst_row_error', 'element': 'max_element_error'}
    for name in ('query', 'key', 'value'):
        component = result['components'][name]
        for kind, measure in ERRORS.items():
            assert component[names[kind]] == pytest.approx(measure(inputs[name], result[name]), rel=1e-4)
        assert component['error'] == component[names[bound]] <= max_error
    assert result['components']['attention_weights']['error'] <= max_error
    output = result['components']['output']
    assert output['method'] == 'none' and output['ratio'] == 1
    for kind, measure in ERRORS.items():
        assert output[names[kind]] == pytest.approx(measure(exact, result['output']), rel=1e-6)
    assert output['error'] == output[names[bound]]


def test_a_tighter_bound_gives_a_better_output():
    inputs = some_inputs()
    errors = [attend(configured(f'max_error:{e}'), **inputs)['components']['output']['error']
              for e in (0.1, 0.01, 0.001, 0)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-6 < errors[-2] < 0.01


def test_made_inputs_follow_from_the_seed():
    first, again, other = attend(), attend(), attend(seed=1)
    for name in (*PARTS, 'output'):
        assert torch.equal(first[name], again[name])
    assert not torch.equal(first['query'], other['query'])
    everything = torch.cat([first[name].flatten() for name in ('query', 'key', 'value')])
    assert abs(everything.mean()) < 0.05 and abs(everything.std() - 1) < 0.05


def test_sizes_at_their_defaults_follow_from_the_tensors():
    optimizer = qvlmem.IntegratedMemoryOptimizer({})
    result = optimizer.optimize_attention_mechanism(**some_inputs())
    assert list(result['output'].shape) == [2, 48, 96]


def test_any_strides_and_gradients_are_taken_by_value():
    inputs = {name: x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
              for name, x in some_inputs().items()}
    want = attend(**{name: x.detach().contiguous() for name, x in inputs.items()})
    result = attend(**inputs)
    assert torch.equal(result['output'], want['output']) and not result['output'].requires_grad


def test_the_cache_and_the_pools_hold_the_parts_compressed():
    optimizer = qvlmem.IntegratedMemoryOptimizer({})
    result = attend(optimizer)
    components = result['components']
    assert optimizer.cache.keys() == sorted(f'attention/{name}' for name in PARTS)
    for name in PARTS:
        assert torch.equal(optimizer.cache.get(f'attention/{name}'), result[name])
    held = {pool: sum(components[name]['bytes_after'] for name in PARTS if components[name]['pool'] == pool)
            for pool in ('activations', 'kv_cache')}
    assert {name: components[name]['pool'] for name in PARTS} == {
        'query': 'activations', 'key': 'kv_cache', 'value': 'kv_cache', 'attention_weights': 'activations'}
    pools = optimizer.pools
    assert pools['kv_cache'].stats()['allocated_bytes'] == held['kv_cache'] < 2 * PART_BYTES / 3
    # The output is the only one that is not compressed.
    assert pools['activations'].stats()['allocated_bytes'] == held['activations'] + PART_BYTES
    assert pools['temporary'].stats()['allocated_bytes'] == 3 * PART_BYTES + WEIGHTS_BYTES
    assert optimizer.cache.stats().cpu_bytes == sum(held.values())
    del result
    gc.collect()
    assert pools['temporary'].stats()['allocated_bytes'] == 0
    optimizer.cache.clear()
    assert pools['kv_cache'].stats()['allocated_bytes'] == 0


def test_a_second_call_takes_the_memory_of_the_first():
    optimizer = qvlmem.IntegratedMemoryOptimizer({})
    for _ in range(3):
        attend(optimizer)
    stats = optimizer.pools['temporary'].stats()
    assert stats['misses'] == 4 and stats['hits'] == 8
    assert len(optimizer.cache.keys()) == 4


def test_statistics_are_what_the_storages_say():
    optimizer = qvlmem.IntegratedMemoryOptimizer({})
    statistics = optimizer.get_compression_statistics()
    assert statistics.memory_saved_bytes == 0
    components = attend(optimizer)['components']
    saved = sum(components[name]['bytes_before'] - components[name]['bytes_after'] for name in PARTS)
    assert statistics.memory_saved_bytes == statistics['memory_saved_bytes'] == saved
    assert saved == 3 * PART_BYTES + WEIGHTS_BYTES - statistics.cpu_bytes
    assert statistics.tensors_compressed == statistics.compression_attempts == 4
    attend(optimizer)
    assert statistics.memory_saved_bytes == 2 * saved
    assert statistics.cpu_bytes == optimizer.cache.stats().cpu_bytes


def test_a_budget_without_room_says_so():
    optimizer = qvlmem.IntegratedMemoryOptimizer({'memory_size': 2 * PART_BYTES})
    with pytest.raises(torch.OutOfMemoryError, match='cpu_budget'):
        attend(optimizer)
    gc.collect()
    assert optimizer.pools['temporary'].stats()['allocated_bytes'] == 0
    small = {**SIZES, 'batch_size': 1, 'seq_len': 8}
    assert optimizer.optimize_attention_mechanism(**small)['output'].shape == (1, 8, 96)


def test_threads_share_one_optimizer():
    optimizer = qvlmem.IntegratedMemoryOptimizer({})
    want = {seq: attend(seq_len=seq)['output'] for seq in (8, 16, 24)}
    wrong = []

    def work(seq):
        for _ in range(5):
            if not torch.equal(attend(optimizer, seq_len=seq)['output'], want[seq]):
                wrong.append(seq)

    threads = [threading.Thread(target=work, args=(seq,)) for seq in want]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


BAD_ARGUMENTS = [
    ({'hidden_dim': 97}, ValueError, ('hidden_dim', 'multiple of num_heads (3)', '97')),
    ({'batch_size': 0}, ValueError, ('batch_size', 'at least 1', '0')),
    ({'seq_len': -5}, ValueError, ('seq_len', 'at least 1', '-5')),
    ({'num_heads': 2.0}, TypeError, ('num_heads', 'an int', '2.0')),
    ({'batch_size': True}, TypeError, ('batch_size', 'an int', 'True')),
    ({'hidden_dim': '96'}, TypeError, ('hidden_dim', 'an int', "'96'")),
    ({'query': torch.ones(SHAPE)}, ValueError, ('query, key and value together', 'no key')),
    ({**some_inputs(), 'key': torch.ones(2, 3, 49, 32)}, ValueError,
     ("key to have query's shape [2, 3, 48, 32]", '[2, 3, 49, 32]')),
    ({**some_inputs(), 'value': torch.ones(SHAPE, dtype=torch.float16)}, TypeError,
     ("value to have query's dtype", 'float32', 'float16')),
    ({**some_inputs(), 'key': torch.ones(SHAPE, dtype=torch.int64)}, TypeError,
     ('key to be float32, float16 or bfloat16', 'int64')),
    ({**some_inputs(), 'value': 'words'}, TypeError, ('value to be a tensor', "'words'")),
    ({**some_inputs(), 'query': torch.ones(3, 48, 32)}, ValueError,
     ('query', '[batch, heads, seq, head_dim]', '[3, 48, 32]')),
    (some_inputs(shape=[2, 0, 48, 32]), ValueError, ('query', 'at least 1', '[2, 0, 48, 32]')),
    ({**some_inputs(), 'value': torch.full(SHAPE, float('nan'))}, ValueError, ('value to be finite',)),
    ({**some_inputs(), 'value': torch.ones(SHAPE, device='meta')}, NotImplementedError, ('on cpu', 'meta')),
    ({**some_inputs(), 'seq_len': 47}, ValueError, ('seq_len to be 48', '47')),
]


@pytest.mark.parametrize('arguments, error, words', BAD_ARGUMENTS,
                         ids=[f'{i}-{b[2][0]}' for i, b in enumerate(BAD_ARGUMENTS)])
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error) as raised:
        attend(**arguments)
    message = str(raised.value)
    assert message.startswith('IntegratedMemoryOptimizer.optimize_attention_mechanism: expected ')
    assert ', got ' in message and all(word in message for word in words), message
