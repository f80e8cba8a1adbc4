# SPDX-License-Identifier: Apache-2.0
"""qvlmem.save and qvlmem.load: what goes in comes out, shared as it was, a tensor at a time."""

import collections
import os
import subprocess
import sys
import textwrap

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import qvlmem
from qvlmem import _frame_file
from strategies import (ALL_DTYPES, ERRORS, LAYOUTS, any_tensors, laid_out, row_error, same_bits, tensors,
                        values, zero_bits)

KEYS = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates and control characters included


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'file of any name'


@given(st.dictionaries(KEYS, any_tensors(), max_size=5), st.sampled_from(('size', 'balanced', 'speed')))
def test_a_dict_comes_back_bit_by_bit_and_in_order(tmp_path, obj, prefer):
    path = tmp_path / 'dict'
    qvlmem.save(obj, path, prefer=prefer)
    loaded = qvlmem.load(path)
    assert type(loaded) is dict and list(loaded) == list(obj)
    for key, x in obj.items():
        assert same_bits(x, loaded[key]), key
        assert loaded[key].is_contiguous() and not loaded[key].requires_grad
        assert loaded[key].untyped_storage().nbytes() == loaded[key].nbytes


@given(any_tensors())
def test_a_tensor_comes_back(tmp_path, x):
    qvlmem.save(x, tmp_path / 'tensor')
    assert same_bits(x, qvlmem.load(tmp_path / 'tensor'))


@pytest.mark.parametrize('dtype', ALL_DTYPES, ids=str)
def test_every_dtype_has_the_name_that_its_frame_says(ops, dtype, path):
    frame = ops.pack(ops.compress(zero_bits((2, 3), dtype), 'none'))
    assert _frame_file.head_of(frame)[:2] == (str(dtype).removeprefix('torch.'), (2, 3))
    qvlmem.save({'x': zero_bits((2, 3), dtype)}, path)
    assert same_bits(qvlmem.load(path)['x'], zero_bits((2, 3), dtype))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_comes_back_by_its_values(path, layout):
    x = laid_out(values('normal', (6, 7, 8), torch.float32), layout)
    qvlmem.save({'x': x}, path)
    assert same_bits(qvlmem.load(path)['x'], x)


def test_lazily_conjugated_and_negated_views_come_back_by_their_values(path):
    z = torch.randn(5, 3, dtype=torch.complex64)
    obj = {'z': z, 'conj': z.conj(), 'neg': z.conj().imag}
    qvlmem.save(obj, path)
    loaded = qvlmem.load(path)
    assert all(same_bits(loaded[key], obj[key].resolve_conj().resolve_neg()) for key in obj)


@given(tensors(kinds=('normal', 'outliers', 'sparse')), st.sampled_from(('auto', 'int8', 'bounded', 'sparse')))
def test_a_compressed_tensor_stays_compressed(tmp_path, x, method):
    c = qvlmem.compress(x, method)
    qvlmem.save(c, tmp_path / 'c')
    qvlmem.save({'c': c, 'again': c}, tmp_path / 'dict')
    loaded = qvlmem.load(tmp_path / 'dict')
    assert loaded['c'] is loaded['again']
    for d in (qvlmem.load(tmp_path / 'c'), loaded['c']):
        assert d.method() == c.method() and torch.equal(qvlmem.pack(d), qvlmem.pack(c))


def test_many_tensors_of_many_sizes_come_back(path):
    """Through several reads, of one frame and of many, with compressed ones between."""
    generator = torch.Generator().manual_seed(1)
    obj = {}
    for index, size in enumerate((1, 3 << 20, 9 << 20, 5, 7 << 20, 6 << 20, 1, 1, 20 << 20, 2)):
        obj[str(index)] = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
        obj[f'c{index}'] = qvlmem.compress(obj[str(index)][:1000], 'none')
    qvlmem.save(obj, path)
    loaded = qvlmem.load(path)
    assert list(loaded) == list(obj)
    for key, value in obj.items():
        if key.startswith('c'):
            assert torch.equal(qvlmem.pack(loaded[key]), qvlmem.pack(value))
        else:
            assert torch.equal(loaded[key], value)


def test_a_model_with_tied_weights(path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(50, 64)
            self.norm = torch.nn.BatchNorm1d(64)
            self.head = torch.nn.Linear(64, 50, bias=False)
            self.head.weight = self.embedding.weight

    model = Tied()
    state = model.state_dict()
    qvlmem.save(state, path)
    loaded = qvlmem.load(path)
    assert list(loaded) == list(state) and loaded['norm.num_batches_tracked'].shape == ()
    assert loaded['head.weight'].data_ptr() == loaded['embedding.weight'].data_ptr()
    assert loaded['head.weight'] is not loaded['embedding.weight']
    assert path.stat().st_size < state['head.weight'].nbytes * 1.5
    other = Tied()
    other.load_state_dict(loaded)
    assert all(same_bits(state[key], value) for key, value in other.state_dict().items())
    qvlmem.save(dict(model.named_parameters()), path)
    assert not any(value.requires_grad for value in qvlmem.load(path).values())


def test_other_views_of_the_same_memory_are_stored_by_their_values(path):
    x = torch.arange(24.).reshape(4, 6)
    obj = {'x': x, 'same': x.view(4, 6), 'row': x[0], 'turned': x.t(), 'flat': x.view(24),
           'corner': x[:2, :2], 'turned corner': x.t()[:2, :2], 'bits': x.view(torch.int32),
           'empty': x[:0], 'empty too': x[:0]}
    qvlmem.save(obj, path)
    loaded = qvlmem.load(path)
    assert all(same_bits(loaded[key], obj[key]) for key in obj)
    where = {key: value.data_ptr() for key, value in loaded.items() if value.numel()}
    assert where['same'] == where['x'] and len(set(where.values())) == len(where) - 1


def test_kinds_of_dicts(path):
    for obj in ({}, collections.OrderedDict(b=torch.ones(2), a=torch.zeros(3))):
        qvlmem.save(obj, path)
        assert list(qvlmem.load(path)) == list(obj)


@pytest.mark.parametrize('bound', ERRORS)
@pytest.mark.parametrize('prefer', ['size', 'balanced', 'speed'])
def test_a_bound_holds_for_floats_and_integers_keep_every_bit(path, bound, prefer):
    obj = {'w': values('outliers', (40, 129), torch.float32), 'i': torch.arange(1000), 'b': torch.rand(99) > 0.5,
           'd': values('normal', (9, 9), torch.float32).double()}
    qvlmem.save(obj, path, max_error=0.01, bound=bound, prefer=prefer)
    loaded = qvlmem.load(path)
    assert 0 < ERRORS[bound](obj['w'], loaded['w']) <= 0.01
    assert all(same_bits(obj[key], loaded[key]) for key in ('i', 'b', 'd'))


@pytest.mark.parametrize('method', ['none', 'lossless', 'fp16', 'int8', 'int4', 'bounded', 'svd', 'sparse'])
def test_a_method_is_for_the_dtypes_that_it_takes(path, method):
    obj = {'w': values('low_rank', (40, 64), torch.float32), 'd': values('normal', (40, 64), torch.float32).double(),
           'i': torch.arange(1000), 'z': torch.randn(5, dtype=torch.complex64)}
    qvlmem.save(obj, path, method=method, max_error=0.01)
    with qvlmem.files.open_file(path) as source:
        used = {name: source.compressed(number).method() for name, number in source.names}
    assert used['w'] == method
    assert (used['d'] == method) == (method in ('none', 'lossless', 'fp16'))
    loaded = qvlmem.load(path)
    assert same_bits(obj['i'], loaded['i']) and same_bits(obj['z'], loaded['z'])
    assert row_error(obj['d'], loaded['d']) <= (1e-3 if method == 'fp16' else 0)


def test_the_default_is_smaller_and_size_is_the_smallest(path):
    obj = {'w': (torch.randn(256, 1024) * 0.02).bfloat16()}
    sizes = {}
    for prefer in ('size', 'balanced'):
        qvlmem.save(obj, path, prefer=prefer)
        sizes[prefer] = path.stat().st_size
    qvlmem.save(obj, path)
    assert path.stat().st_size == sizes['balanced']
    assert sizes['size'] <= sizes['balanced'] < 0.75 * obj['w'].nbytes


@pytest.mark.parametrize(('obj', 'said'), [
    ([torch.ones(2)], 'obj a dict of them, got list'), (None, 'got NoneType'), (torch.nn.Linear(2, 2), 'got Linear'),
    ({'a': 3.0}, r"obj\['a'\] to be a tensor or a CompressedTensor, got float"),
    ({'a': {'b': torch.ones(2)}}, r"obj\['a'\] .*got dict"), ({1: torch.ones(2)}, 'keys to be str, got 1'),
    ({'fine': torch.ones(2), 's': torch.ones(2).to_sparse()}, r"obj\['s'\] to be a dense tensor .*sparse"),
    ({'m': torch.empty(2, device='meta')}, r"obj\['m'\] .*meta"),
    ({'q': torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)}, r"obj\['q'\] .*qint8")])
def test_what_cannot_be_saved_is_a_type_error_that_names_it(path, obj, said):
    with pytest.raises(TypeError, match=f'qvlmem.save: (?s:.*){said}'):
        qvlmem.save(obj, path)
    assert not path.exists()


@pytest.mark.parametrize('options', [{'method': 'zip'}, {'max_error': -1}, {'max_error': float('nan')},
                                     {'bound': 'column'}, {'prefer': 'luck'}])
def test_bad_options_are_refused_before_anything_is_written(path, options):
    path.write_text('old')
    with pytest.raises(ValueError, match=str(next(iter(options.values()))).replace('-1', '-1')):
        qvlmem.save({}, path, **options)
    assert path.read_text() == 'old'


def test_values_that_a_method_refuses_are_named(path):
    obj = {'fine': torch.ones(3), 'bad': torch.tensor([1.0, float('nan')])}
    with pytest.raises(ValueError, match=r"qvlmem.save: obj\['bad'\]: .*NaN"):
        qvlmem.save(obj, path, method='int8')
    assert os.listdir(path.parent) == []


def test_the_bytes_of_pack_load_as_what_they_are(path):
    c = qvlmem.compress(values('normal', (9, 9), torch.float32), 'int8')
    path.write_bytes(qvlmem.pack(c).numpy().tobytes())
    assert torch.equal(qvlmem.pack(qvlmem.load(path)), qvlmem.pack(c))


def test_a_device_is_where_the_tensors_go(path):
    qvlmem.save({'x': torch.ones(3), 'c': qvlmem.compress(torch.ones(3))}, path)
    for device in ('cpu', torch.device('cpu')):
        loaded = qvlmem.load(path, device=device)
        assert loaded['x'].device == torch.device('cpu') and torch.equal(loaded['x'], torch.ones(3))
    with pytest.raises(RuntimeError, match='device'):
        qvlmem.load(path, device='nowhere')
    assert qvlmem.load(path, device='meta')['x'].is_meta


# The peak above what the caller holds, in another process; in tensors of 8 MiB, of which there are 24.
MEASURE = '''
    import sys, torch, qvlmem
    task, path = sys.argv[1:]
    torch.set_num_threads(1)
    def memory(name):
        return next(int(line.split()[1]) / 8192 for line in open('/proc/self/status') if line.startswith(name))
    qvlmem.decompress(qvlmem.unpack(qvlmem.pack(qvlmem.compress(torch.randn(1 << 16).bfloat16()))))
    if task == 'save':
        obj = {str(i): torch.randn(2048, 2048).bfloat16() for i in range(24)}
    before = memory('VmRSS')
    if task == 'save':
        qvlmem.save(obj, path)
    else:
        obj = qvlmem.load(path)
    print(memory('VmHWM') - before)
'''


def test_saving_and_loading_take_the_memory_of_a_tensor_or_two(path):
    def tensors_of_memory(task):
        # glibc gives back at once what is above a threshold that stays where it is.
        result = subprocess.run([sys.executable, '-c', textwrap.dedent(MEASURE), task, path], text=True,
                                capture_output=True, check=False,
                                env=os.environ | {'MALLOC_MMAP_THRESHOLD_': str(1 << 20)})
        assert result.returncode == 0, result.stderr[-2000:]
        return float(result.stdout)
    assert 0.5 < tensors_of_memory('save') < 6
    assert 23 < tensors_of_memory('load') < 24 + 4
