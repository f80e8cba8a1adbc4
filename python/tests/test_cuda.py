# SPDX-License-Identifier: Apache-2.0
"""CUDA tensors: the parts, values and words of the CPU.

That they are what they must be is tested with the CPU's, in the modules that are marked each_device.
"""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from cuda_device import check_same, on_cuda, require_cuda  # noqa: F401  (a fixture)
from op_samples import TENSOR_OPS, samples
from strategies import FLOATS, any_tensors, same_bits, tensors, values

pytestmark = pytest.mark.cuda

# What svd computes depends on the device's linear algebra; its error is what is pinned.
SAME_BYTES = tuple(op for op in TENSOR_OPS if not op.startswith('svd'))
METHODS = ('none', 'int8', 'int4', 'fp16', 'bounded', 'sparse', 'lossless')


def errors_of(c):
    return c.relative_error(), c.worst_row_error(), c.max_element_error()


@pytest.mark.parametrize('op', SAME_BYTES)
def test_every_operator_gives_the_bytes_of_the_cpu(ops, op):
    for arguments, keywords in samples(op):
        want = getattr(ops, op)(*arguments, **keywords)
        check_same(getattr(ops, op)(*map(on_cuda, arguments), **keywords), want)


@given(tensors(), st.sampled_from((8, 4)), st.booleans(),
       st.sampled_from((0, -1, 1, 7, 32, 64, 128, 1000, 10**6)), st.sampled_from((None, 5)))
def test_quantize(ops, x, bits, symmetric, group_size, seed):
    want = ops.quantize(x, bits, symmetric, group_size, seed)
    got = ops.quantize(on_cuda(x), bits, symmetric, group_size, seed)
    check_same(got, want)
    for dtype in FLOATS:
        arguments = (x.shape, bits, group_size, dtype)
        check_same(ops.dequantize(*got, *arguments), ops.dequantize(*want, *arguments))


@given(tensors(nonfinite=True), st.booleans())
def test_to_fp16(ops, x, wide):
    x = x.double() if wide else x
    want = ops.to_fp16(x)
    got = ops.to_fp16(on_cuda(x))
    check_same(got, want)
    check_same(ops.from_fp16(*got, x.dtype), ops.from_fp16(*want, x.dtype))


@given(tensors(), st.sampled_from((0.0, 0.3, 0.5, 0.9, 1.0)), st.booleans())
def test_sparsify(ops, x, threshold, prune):
    want = ops.sparsify(x, threshold, prune)
    got = ops.sparsify(on_cuda(x), threshold, prune)
    check_same(got, want)
    check_same(ops.densify(*got, x.shape), ops.densify(*want, x.shape))


@given(any_tensors(), st.sampled_from((1, 2)))
def test_lossless(ops, x, level):
    want = ops.lossless_encode(x, level)
    got = ops.lossless_encode(on_cuda(x), level)
    check_same(got, want)
    check_same(ops.lossless_decode(got, x.shape, x.dtype), ops.lossless_decode(want, x.shape, x.dtype))


def test_damaged_lossless_bytes_are_refused_in_the_same_words(ops):
    x = values('normal', (50, 70), torch.bfloat16)
    good = ops.lossless_encode(x)
    longer, damaged = torch.cat([good, good[:1]]), good.clone()
    damaged[-40] ^= 0xff
    damaged[32] ^= 0x55
    for data, shape, dtype in ((good[:-1], x.shape, x.dtype), (longer, x.shape, x.dtype), (damaged, x.shape, x.dtype),
                               (good[:9], x.shape, x.dtype), (good, [3], x.dtype), (good, x.shape, torch.float32)):
        told = []
        for tensor in (data, on_cuda(data)):
            with pytest.raises((ValueError, TypeError)) as error:
                ops.lossless_decode(tensor, shape, dtype)
            told.append((error.type, str(error.value).splitlines()[0]))
        assert told[0] == told[1]


@pytest.mark.parametrize('bound', ['tensor', 'row', 'element'])
@pytest.mark.parametrize('dtype', FLOATS, ids=str)
def test_bounded_packs_what_it_packs_on_the_cpu(ops, bound, dtype):
    manager = torch.classes.qvlmem.CompressionManager(f'prefer:balanced,max_error:0.01,bound:{bound}')
    for kind in ('normal', 'sparse', 'outliers'):
        for shape in ((33, 129), (3, 40001), (5, 8192), (700000,), (0,), ()):
            x = values(kind, shape, dtype)
            want, got = manager.compress_tensor(x, 'bounded'), manager.compress_tensor(on_cuda(x), 'bounded')
            check_same(got.parts(), want.parts())
            check_same(ops.decompress(got), ops.decompress(want))


@given(tensors(kinds=('sparse', 'zeros', 'signed_zeros', 'normal')))
def test_coo_of_the_sparse_parts(ops, x):
    want, got = ops.compress(x, 'sparse').to_sparse_coo(), ops.compress(on_cuda(x), 'sparse').to_sparse_coo()
    assert got.device.type == 'cuda' and got.is_coalesced() and got.shape == want.shape
    check_same((got.indices(), got.values()), (want.indices(), want.values()))


def test_a_damaged_index_has_no_coo(ops):
    c = ops.compress(on_cuda(values('sparse', (300, 300), torch.float32)), 'sparse')
    c.parts()[0][0] ^= 1
    with pytest.raises(ValueError, match='the index'):
        c.to_sparse_coo()


@given(tensors(nonfinite=True))
def test_profile(ops, x):
    check_same(ops.profile_values(on_cuda(x)), ops.profile_values(x))


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
def test_svd_takes_the_rank_that_it_takes_on_the_cpu(ops, dtype):
    x = values('low_rank', (96, 160), dtype)
    for energy in (0.9, 0.99, 0.9999):
        wanted, found = (ops.svd(t, energy=energy)[0].shape[1] for t in (x, on_cuda(x)))
        assert abs(found - wanted) <= max(1, wanted // 20)


@pytest.mark.parametrize('indices', [[3, -1], [3, 12], [5, 5], [7, 2]], ids=str)
def test_indices_that_cannot_be_are_refused_in_the_same_words(ops, indices):
    told = []
    for move in (lambda t: t, on_cuda):
        for dtype in (torch.int32, torch.int64):
            with pytest.raises(ValueError) as error:
                ops.densify(move(torch.tensor(indices, dtype=dtype)), move(torch.ones(2)), [3, 4])
            told.append(str(error.value).splitlines()[0])
    assert len(set(told)) == 1


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('dtype', FLOATS, ids=str)
def test_compress_holds_what_it_holds_on_the_cpu(ops, method, dtype):
    for kind in ('normal', 'sparse', 'outliers', 'low_rank'):
        x = values(kind, (33, 129), dtype)
        want, got = ops.compress(x, method), ops.compress(on_cuda(x), method)
        assert all(p.device.type == 'cuda' for p in got.parts())
        check_same(got.parts(), want.parts())
        assert errors_of(got) == errors_of(want)
        check_same(ops.decompress(got), ops.decompress(want))
        assert same_bits(ops.decompress(ops.unpack(ops.pack(got))), ops.decompress(want))
        check_same(ops.decompress(ops.unpack(ops.pack(want), 'cuda')), ops.decompress(want))


@pytest.mark.parametrize('op', ['quantize', 'svd', 'sparsify'])
def test_values_that_are_not_finite_are_refused_in_the_same_words(ops, op):
    x = values('normal', (5, 70), torch.float32)
    x[3, 11], x[4, 0] = float('nan'), float('inf')
    told = []
    for tensor in (x, on_cuda(x)):
        with pytest.raises(ValueError, match='2 values that are NaN or infinite') as error:
            getattr(ops, op)(tensor)
        told.append(str(error.value).splitlines()[0])
    assert told[0] == told[1]


def test_parts_on_two_devices_are_refused(ops):
    q, scale, zero_point = ops.quantize(on_cuda(torch.randn(4, 8)))
    with pytest.raises(ValueError, match='on one device'):
        ops.dequantize(q, scale.cpu(), zero_point, [4, 8])
