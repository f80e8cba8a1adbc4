# SPDX-License-Identifier: Apache-2.0
"""compress and decompress by every method but auto (test_auto.py): what comes back, what is reported."""

import copy
import math
import os
import pickle
import platform
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from cuda_device import on
from strategies import (ALL_DTYPES, ERRORS, EXACT_DTYPES, FLOATS, KINDS, any_tensors, element_error,
                        row_error, same_bits, tensor_error, tensors, values, zero_bits)

pytestmark = pytest.mark.each_device

METHODS = ('none', 'int8', 'int4', 'fp16', 'bounded', 'svd', 'sparse', 'lossless')
EXACT = ('none', 'lossless')
LOSSY = tuple(m for m in METHODS if m not in EXACT)
# svd refuses what would overflow its factors; everything else takes every finite value.
TAME = tuple(k for k in KINDS if k not in ('huge', 'wide'))


def assume_factors_fit(x):
    """No singular value is above the Frobenius norm, and u carries them."""
    hypothesis.assume(x.dtype != torch.float16 or float(x.double().norm()) < 65000)


def storage_bytes(parts):
    held = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in parts}
    return sum(held.values())


def check_compressed(ops, c, x):
    """What holds for every CompressedTensor; returns what comes back."""
    y = ops.decompress(c)
    assert y.shape == x.shape and y.dtype == x.dtype and y.device == x.device
    assert y.is_contiguous() and not y.requires_grad
    assert c.shape() == list(x.shape)
    assert c.original_nbytes() == x.numel() * x.dtype.itemsize
    assert c.nbytes() == storage_bytes(c.parts())
    if x.numel() == 0:
        assert c.ratio() == 1 and c.relative_error() == 0
    else:
        assert c.ratio() == pytest.approx(c.original_nbytes() / c.nbytes(), rel=1e-9)
    return y


def check_reported(c, x, y):
    """Every error that c reports is what is measured here, in float64."""
    assert c.relative_error() == pytest.approx(tensor_error(x, y), rel=1e-4, abs=1e-12)
    if c.worst_row_error() != -1:
        assert c.worst_row_error() == pytest.approx(row_error(x, y), rel=1e-4, abs=1e-12)
    if c.max_element_error() != -1:
        assert c.max_element_error() == pytest.approx(element_error(x, y), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize('method', METHODS)
@given(data=st.data())
def test_every_method_gives_back_the_tensor_and_its_error(ops, method, data):
    x = data.draw(tensors(kinds=TAME if method == 'svd' else KINDS))
    if method == 'svd':
        assume_factors_fit(x)
    c = ops.compress(x, method)
    assert c.method() == method
    y = check_compressed(ops, c, x)
    assert bool(torch.isfinite(y).all())
    check_reported(c, x, y)
    if method in EXACT:
        assert same_bits(x, y)


@pytest.mark.parametrize('method', EXACT)
@given(data=st.data())
def test_exact_methods_keep_every_bit_of_every_dtype(ops, method, data):
    x = data.draw(any_tensors())
    c = ops.compress(x, method)
    assert c.method() == method
    assert same_bits(x, check_compressed(ops, c, x))
    assert c.relative_error() == 0
    assert c.worst_row_error() in (0, -1) and c.max_element_error() in (0, -1)


@pytest.mark.parametrize('dtype', ALL_DTYPES, ids=str)
def test_strides_of_every_dtype_are_followed(ops, dtype):
    """PyTorch itself does not transpose a matrix of float4_e2m1fn_x2 that has some size."""
    item = torch.empty(0, dtype=dtype).element_size()
    x = torch.randint(0, 2, (129, 66 * item), dtype=torch.uint8).view(dtype).t()
    for method in (*EXACT, 'auto'):
        assert same_bits(x, check_compressed(ops, ops.compress(x, method, max_error=0.0), x))
    for level in (1, 2):
        assert same_bits(x, ops.lossless_decode(ops.lossless_encode(x, level), x.shape, dtype))


@given(tensors(), st.sampled_from((8, 4)), st.booleans(), st.sampled_from((0, -1, 1, 32, 100)))
def test_integer_methods_are_quantize(ops, x, bits, symmetric, group_size):
    c = ops.compress(x, f'int{bits}', symmetric=symmetric, group_size=group_size)
    parts = ops.quantize(x, bits, symmetric, group_size)
    want = ops.dequantize(*parts, x.shape, bits, group_size, x.dtype)
    assert same_bits(ops.decompress(c), want)
    assert c.nbytes() <= sum(p.nbytes for p in parts)


@given(tensors(dtypes=(*FLOATS, torch.float64), nonfinite=True))
def test_fp16_method_is_to_fp16(ops, x):
    c = ops.compress(x, 'fp16')
    y = check_compressed(ops, c, x)
    want = ops.from_fp16(*ops.to_fp16(x), x.dtype)
    assert torch.equal(y.nan_to_num(nan=7), want.nan_to_num(nan=7))
    assert torch.equal(y.isnan(), x.isnan()) and torch.equal(y.isinf(), x.isinf())


@given(tensors(), st.sampled_from((0.0, 0.25, 0.5, 0.9, 1.0)))
def test_sparse_method_is_sparsify(ops, x, threshold):
    c = ops.compress(x, 'sparse', sparsity_threshold=threshold)
    want = ops.densify(*ops.sparsify(x, threshold, True), x.shape)
    assert same_bits(ops.decompress(c), want)
    assert int((want == 0).sum()) >= math.ceil(threshold * x.numel())


@given(tensors(kinds=('sparse', 'zeros', 'signed_zeros', 'normal')))
def test_to_sparse_coo_is_torch_s_own(ops, x):
    c = ops.compress(x, 'sparse')
    coo = c.to_sparse_coo()
    assert coo.layout == torch.sparse_coo and coo.shape == x.shape and coo.dtype == x.dtype
    assert torch.equal(coo.to_dense().cpu(), ops.decompress(c))
    assert coo.is_coalesced() and coo._nnz() == int((ops.decompress(c) != 0).sum())


@pytest.mark.parametrize('zeros', [0.5, 0.9, 0.99])
def test_sparse_positions_cost_less_than_coo(ops, zeros):
    x = torch.randn(64, 1024)
    x[torch.rand(x.shape) < zeros] = 0
    c = ops.compress(x, 'sparse', sparsity_threshold=0.0)
    assert same_bits(ops.decompress(c), x)
    assert c.nbytes() <= x.numel() // 8 + int((x != 0).sum()) * 4 + 4096


@given(tensors(kinds=TAME), st.booleans(), st.sampled_from((0.1, 0.5, 1.0)))
def test_svd_keeps_its_energy_or_its_ratio(ops, x, adaptive, ratio):
    assume_factors_fit(x)
    c = ops.compress(x, 'svd', adaptive_rank=adaptive, compression_ratio=ratio)
    y = check_compressed(ops, c, x)
    if adaptive:
        assert tensor_error(x, y) <= 0.1 + 4 * torch.finfo(x.dtype).eps
    columns = x.shape[-1] if x.dim() else 1
    rows = x.numel() // columns if columns else 0
    if not adaptive and (rows + columns) * x.dtype.itemsize <= ratio * x.nbytes:
        assert c.nbytes() <= ratio * x.nbytes


BOUNDS = st.sampled_from(tuple(ERRORS))


@given(tensors(), BOUNDS, st.sampled_from((1e-6, 1e-3, 0.01, 0.1, 0.5)))
def test_bounded_holds_its_bound(ops, x, bound, max_error):
    c = ops.compress(x, 'bounded', max_error=max_error, bound=bound)
    y = check_compressed(ops, c, x)
    assert ERRORS[bound](x, y) <= max_error * (1 + 1e-9)
    check_reported(c, x, y)
    reported = {'tensor': c.relative_error(), 'row': c.worst_row_error(),
                'element': c.max_element_error()}[bound]
    assert 0 <= reported <= max_error


def test_bounded_spends_what_it_may(ops):
    """One step for each bound: a tenth of the error allowed would be bits thrown away."""
    x = values('normal', (64, 1024), torch.float32)
    sizes = []
    for max_error in (1e-4, 1e-3, 1e-2, 1e-1):
        for bound, error in ERRORS.items():
            c = ops.compress(x, 'bounded', max_error=max_error, bound=bound)
            assert error(x, ops.decompress(c)) >= 0.3 * max_error, (bound, max_error)
            if bound == 'tensor':
                sizes.append(c.nbytes())
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1.5 * sizes[-1]


@pytest.mark.parametrize('method', LOSSY)
@pytest.mark.parametrize('dtype', EXACT_DTYPES, ids=str)
def test_lossy_methods_refuse_other_dtypes(ops, method, dtype):
    x = zero_bits((3, 5), dtype)
    if method == 'fp16' and dtype == torch.float64:
        assert ops.compress(x, method).method() == 'fp16'
        return
    with pytest.raises(TypeError, match=r'qvlmem::compress: expected (?s:.*) got '):
        ops.compress(x, method)


@pytest.mark.parametrize('method', ['int8', 'int4', 'bounded', 'svd', 'sparse'])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_lossy_methods_refuse_what_is_not_finite(ops, method, value):
    x = torch.randn(40, 30)
    x[1, 3] = x[7, 0] = value
    with pytest.raises(ValueError, match=r'qvlmem::\w+: expected (?s:.*)\b2\b') as caught:
        ops.compress(x, method)
    assert '[1, 3]' in str(caught.value) or ' 33' in str(caught.value)


@pytest.mark.parametrize('method', METHODS)
def test_result_and_source_share_no_memory(device, method):
    x = on(device, torch.randn(16, 64))
    c = torch.ops.qvlmem.compress(x, method)
    y = torch.ops.qvlmem.decompress(c)
    kept = y.clone()
    x.zero_()
    assert same_bits(torch.ops.qvlmem.decompress(c), kept), 'compress kept a reference to its input'
    y.zero_()
    assert same_bits(torch.ops.qvlmem.decompress(c), kept), 'decompress gave away its own memory'


@pytest.mark.parametrize('method', METHODS)
def test_a_view_does_not_hold_its_base(device, method):
    base = on(device, torch.randn(1000, 64))
    c = torch.ops.qvlmem.compress(base[10:12], method)
    assert c.nbytes() <= 2 * 64 * 4 + 4096


@pytest.mark.parametrize('method', ('auto', *METHODS))
@pytest.mark.parametrize('shape', [(), (0,), (1,), (0, 5), (5, 0), (2, 0, 3), (1, 1, 1)], ids=str)
@pytest.mark.parametrize('dtype', FLOATS, ids=str)
def test_the_smallest_shapes(ops, method, shape, dtype):
    x = torch.full(shape, 0.75, dtype=dtype)
    y = check_compressed(ops, ops.compress(x, method, sparsity_threshold=0.0), x)
    assert tensor_error(x, y) <= 0.01


@pytest.mark.parametrize('method', ('auto', *METHODS))
def test_zero_rows_come_back_zero(ops, method):
    x = torch.randn(8, 72)
    x[2], x[5] = 0, -0.0
    for bound in ERRORS:
        y = ops.decompress(ops.compress(x, method, bound=bound))
        assert not y[2].any() and not y[5].any()
        zero = ops.compress(torch.zeros(8, 72), method, bound=bound)
        assert not ops.decompress(zero).any() and zero.relative_error() == 0


@pytest.mark.parametrize('method', ('auto', *METHODS))
def test_a_tensor_that_requires_grad_gives_its_value(ops, method):
    x = torch.randn(8, 16, requires_grad=True)
    for source in (x, x * 1, torch.nn.Parameter(x.detach().clone())):
        y = ops.decompress(ops.compress(source, method))
        assert not y.requires_grad and tensor_error(x, y) < 1
    with torch.inference_mode():
        z = torch.randn(8, 16)
        ops.decompress(ops.compress(z, method))


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_pickle_and_copies(ops, device, method, dtype):
    x = torch.randn(12, 31).to(dtype)
    c = ops.compress(x, method)
    written = pickle.dumps(c)
    assert bytes(ops.pack(c).numpy()) in written, 'does not pickle as its frame'
    for other in (pickle.loads(written), copy.deepcopy(c), copy.copy(c), c.to('cpu'),
                  c.to(device=torch.device(device))):
        assert other.method() == method and other.shape() == [12, 31]
        if device != 'cpu':  # where copies by way of the frame lie; svd's products differ with the device
            other = other.to(torch.device(device))
        assert same_bits(ops.decompress(other), ops.decompress(c))
        assert other.relative_error() == c.relative_error()


@pytest.mark.parametrize('method', METHODS)
def test_the_same_call_gives_the_same_bytes(ops, threads, method):
    """Also with another number of threads, and where fresh memory is not zero."""
    x = values('outliers', (33, 4304), torch.bfloat16)
    want = ops.pack(ops.compress(x, method))
    threads(1)
    if method != 'svd':  # BLAS sums in another order; the error bound is what is promised
        assert torch.equal(ops.pack(ops.compress(x, method)), want)
    threads(2)
    torch.use_deterministic_algorithms(True)  # fills every empty() with a pattern
    try:
        assert torch.equal(ops.pack(ops.compress(x, method)), want)
    finally:
        torch.use_deterministic_algorithms(False)


def test_lazily_negated_and_conjugated_tensors(ops):
    z = torch.randn(9, 33, dtype=torch.complex64)
    lazy = z.conj().imag
    assert lazy.is_neg()
    for method in ('none', 'lossless', 'int8'):
        y = ops.decompress(ops.compress(lazy, method))
        assert tensor_error(-z.imag, y) < 0.02
    for method in EXACT:
        assert same_bits(ops.decompress(ops.compress(z.conj(), method)), z.conj())


def test_all_dtypes_are_tried():
    """A dtype that PyTorch adds is to be decided on, not forgotten."""
    real = {d for d in vars(torch).values() if isinstance(d, torch.dtype)}
    names = {str(d) for d in real - set(ALL_DTYPES)}
    left = {n for n in names if not any(
        part in n for part in ('qint', 'quint', 'bits', 'int1', 'int2', 'int3', 'int4', 'int5',
                               'int6', 'int7'))}  # quantized, or without operators of any kind
    assert not left


RESIDENT = '''
import torch
import qvlmem

def resident():
    with open('/proc/self/status') as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith('VmRSS'))

def one():
    return qvlmem.compress(torch.randn(1 << 21), max_error=0.01)

one()
before = resident()
held = [one() for _ in range(40)]
print(sum(c.nbytes() for c in held), resident() - before)
'''


@pytest.mark.skipif(platform.libc_ver() < ('glibc', '2.33'), reason='needs glibc 2.33: mallinfo2')
def test_buffers_of_compressing_do_not_stay_resident(library_path):
    environment = os.environ | {'QVLMEM_LIBRARY': library_path, 'PYTHONPATH': os.pathsep.join(sys.path)}
    printed = subprocess.run([sys.executable, '-c', RESIDENT], env=environment, capture_output=True, text=True,
                             check=True).stdout
    held, grown = map(int, printed.split())
    # Twice what is let go at a time. The buffers come to 8 MiB and more for each of the 40.
    assert held < grown + (32 << 20) and grown < held + (128 << 20)
