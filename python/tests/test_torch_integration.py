# SPDX-License-Identifier: Apache-2.0
"""The operators inside PyTorch: schemas, opcheck, autograd, torch.compile, torch.export, threads."""

import concurrent.futures
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
import torch._dynamo.testing

from cuda_device import on
from op_samples import (DIFFERENTIABLE_LOOKING, DYNAMIC_TRIPS, SCHEMAS, STATIC_TRIPS, TENSOR_OPS,
                        round_trips, samples)
from strategies import same_bits, tensor_error, values

pytestmark = pytest.mark.each_device

TRIPS = STATIC_TRIPS + DYNAMIC_TRIPS


@pytest.mark.parametrize('text', SCHEMAS, ids=lambda t: t.split('(')[0])
def test_schemas_are_the_contract_s(text):
    schema = getattr(torch.ops.qvlmem, text.split('(')[0]).default._schema
    assert str(schema) == str(torch._C.parse_schema(f'qvlmem::{text}'))


@pytest.mark.parametrize('op', TENSOR_OPS)
def test_opcheck(device, op):
    for arguments, keywords in samples(op):
        torch.library.opcheck(getattr(torch.ops.qvlmem, op).default, [on(device, a) for a in arguments], keywords)


@pytest.mark.parametrize('op', TENSOR_OPS)
def test_fake_outputs_look_like_the_real_ones(ops, op):
    """Shapes and dtypes on the meta device, where sizes do not depend on the data."""
    for arguments, keywords in samples(op):
        real = getattr(ops, op)(*arguments, **keywords)
        if op in ('svd', 'sparsify', 'lossless_encode'):
            continue
        meta = [a.to('meta') if isinstance(a, torch.Tensor) else a for a in arguments]
        fake = getattr(torch.ops.qvlmem, op)(*meta, **keywords)
        pairs = [(real, fake)] if isinstance(real, torch.Tensor) else zip(real, fake, strict=True)
        for a, b in pairs:
            assert b.device.type == 'meta'
            assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


@pytest.mark.parametrize('op', DIFFERENTIABLE_LOOKING)
def test_backward_raises_rather_than_lose_a_gradient(device, op):
    arguments, keywords = next(iter(samples(op)))
    arguments = [on(device, a) for a in arguments]
    arguments = [a.requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
                 for a in arguments]
    outputs = getattr(torch.ops.qvlmem, op)(*arguments, **keywords)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    floating = [o for o in outputs if o.is_floating_point()]
    assert floating and all(o.requires_grad for o in floating)
    for output in floating:
        with pytest.raises(RuntimeError, match=f'(?i)qvlmem::{op}.*not (implemented|differentiable)|'
                                               f'derivative for .*qvlmem::{op}.* not implemented'):
            output.float().sum().backward()


@pytest.mark.parametrize('trip', TRIPS)
def test_no_grad_and_inference_mode(device, trip):
    function = round_trips()[trip]
    x = on(device, values('sparse', (12, 40), torch.float32))
    want = function(x)
    with torch.no_grad():
        y = function(x.clone().requires_grad_())
        assert not y.requires_grad and same_bits(y, want)
    with torch.inference_mode():
        assert same_bits(function(x.clone()), want)


def compiled(function, x, backend, **options):
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        return torch.compile(function, fullgraph=True, backend=backend, **options)(x)


@pytest.mark.parametrize('trip', TRIPS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_compile_without_graph_breaks(device, trip, dtype):
    function = round_trips()[trip]
    x = on(device, values('sparse', (12, 40), dtype))
    want = function(x * 2) + 1
    for options in ({}, {'dynamic': True}):
        got = compiled(lambda t: function(t * 2) + 1, x, 'aot_eager', **options)
        assert same_bits(got, want)


@pytest.mark.parametrize('trip', TRIPS)
def test_one_compilation_serves_every_size(device, trip):
    """Dynamic sizes: what the fake kernels say must hold for the sizes that come later."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend('aot_eager')
    function = round_trips()[trip]
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        twice = torch.compile(lambda x: function(x) * 2, fullgraph=True, backend=counter, dynamic=True)
        for shape in ((8, 64), (5, 31), (129, 72), (2, 4304)):
            x = on(device, values('normal', shape, torch.float32))
            assert same_bits(twice(x), function(x) * 2)
    assert counter.frame_count == 1


def test_inductor_runs_the_operators_with_generated_code():
    if shutil.which(os.environ.get('CXX', 'g++')) is None:
        pytest.skip('needs a C++ compiler for the code that inductor generates; there is no g++ here')
    trips = [round_trips()[name] for name in TRIPS if name != 'profiles']

    def everything(x):
        y = torch.sin(x) * 3
        return [trip(y).float() + 1 for trip in trips]

    x = values('sparse', (12, 40), torch.float32)
    got = compiled(everything, x, 'inductor')
    for name, a, b in zip(TRIPS, got, everything(x), strict=False):
        assert tensor_error(b, a) <= 1e-5, name  # sin itself may differ in its last bit


def test_compile_breaks_the_graph_around_compress_with_the_same_result(device):
    def function(x, method: str):
        y = x * 2
        z = torch.ops.qvlmem.decompress(torch.ops.qvlmem.compress(y, method))
        return z + y

    x = on(device, values('normal', (16, 32), torch.float32))
    for method in ('auto', 'none', 'int8'):
        torch._dynamo.reset()
        got = torch.compile(function, backend='aot_eager')(x, method)
        assert same_bits(got, function(x, method)), method


def test_compile_breaks_the_graph_around_profile_and_frames():
    def function(x):
        frame = torch.ops.qvlmem.pack(torch.ops.qvlmem.compress(x + 1))
        spread = torch.ops.qvlmem.profile(x)['absmax']
        return torch.ops.qvlmem.decompress(torch.ops.qvlmem.unpack(frame)) * spread

    x = values('normal', (16, 32), torch.float32)
    torch._dynamo.reset()
    assert same_bits(torch.compile(function, backend='aot_eager')(x), function(x))


def test_compile_breaks_the_graph_around_objects_with_the_same_result():
    """And every call takes place once."""
    def make():
        manager = torch.classes.qvlmem.CompressionManager('method:int8')
        return (manager, torch.classes.qvlmem.HierarchicalCache(manager),
                torch.classes.qvlmem.MemoryPool('temporary'))

    def function(x, manager, cache, pool):
        y = manager.decompress_tensor(manager.compress_tensor(x * 2))
        cache.put('key', y + 1)
        z = cache.get('key') * 3
        block = pool.empty([4, 4], torch.float32).fill_(2)
        torch.ops.qvlmem.configure('')
        attempts = torch.ops.qvlmem.memory_stats()['compression_attempts']
        manager.compress_tensor(x)
        return y + z, block + 1, torch.ops.qvlmem.memory_stats()['compression_attempts'] - attempts

    x = values('normal', (16, 32), torch.float32)
    plain, objects = make(), make()
    torch._dynamo.reset()
    compiled_function = torch.compile(function, backend='aot_eager')
    for _ in range(2):
        want, got = function(x, *plain), compiled_function(x, *objects)
        assert same_bits(got[0], want[0]) and same_bits(got[1], want[1]) and got[2] == want[2] == 1
    for now, then in zip(objects[:2], plain[:2], strict=True):
        stats = [c.get_compression_stats() if hasattr(c, 'config') else c.stats() for c in (now, then)]
        assert all(stats[0][k] == stats[1][k] for k in ('compression_attempts', 'hits', 'cpu_bytes'))


class Trip(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x * 2)


@pytest.mark.parametrize('trip', TRIPS)
@pytest.mark.parametrize('strict', [True, False], ids=['strict', 'traced'])
def test_export_with_dynamic_shapes(device, trip, strict):
    module = Trip(round_trips()[trip])
    sizes = {'x': {0: torch.export.Dim('rows', min=2, max=4096)}}
    x = on(device, values('sparse', (12, 40), torch.float32))
    program = torch.export.export(module, (x,), dynamic_shapes=sizes, strict=strict)
    for rows in (12, 7, 130):
        y = on(device, values('sparse', (rows, 40), torch.float32, seed=rows))
        assert same_bits(program.module()(y), module(y))


def test_exported_programs_run_in_a_process_that_only_loads_the_library(library_path, tmp_path):
    """With dynamic shapes, at other sizes than those that they were exported with."""
    sizes = {'x': {0: torch.export.Dim('rows', min=2, max=4096)}}
    inputs = [values('sparse', (rows, 40), torch.float32, seed=rows) for rows in (12, 7, 130)]
    want = {}
    for trip in TRIPS:
        module = Trip(round_trips()[trip])
        program = torch.export.export(module, (inputs[0],), dynamic_shapes=sizes, strict=False)
        torch.export.save(program, tmp_path / f'{trip}.pt2')
        want[trip] = [module(x) for x in inputs]
    torch.save((inputs, want), tmp_path / 'want.pt')
    result = run_python('''
        import sys, torch
        library, folder = sys.argv[1:]
        torch.ops.load_library(library)
        inputs, want = torch.load(folder + '/want.pt')
        for trip, outputs in want.items():
            program = torch.export.load(folder + '/' + trip + '.pt2').module()
            for x, y in zip(inputs, outputs, strict=True):
                assert torch.equal(program(x), y), (trip, x.shape)
        assert 'qvlmem' not in sys.modules
        print(len(want))
    ''', library_path, tmp_path)
    assert result.returncode == 0 and result.stdout.strip() == str(len(TRIPS)), result.stderr[-3000:]


def test_symbolic_tracing_and_vmap_free_functional_tools(device):
    for name in STATIC_TRIPS:
        function = round_trips()[name]
        x = on(device, values('normal', (12, 40), torch.float32))
        traced = torch.fx.experimental.proxy_tensor.make_fx(function)(x)
        assert any('qvlmem' in str(node.target) for node in traced.graph.nodes)
        assert same_bits(traced(x), function(x))


def test_many_threads_at_once(ops, device):
    """The operators hold no state: what threads compute together is what one computes alone."""
    x = [on(device, values('sparse', (64, 129), torch.float32, seed=i)) for i in range(8)]

    def work(i):
        c = ops.compress(x[i], max_error=0.001)
        results = [ops.decompress(ops.unpack(ops.pack(c)))]
        results += [trip(x[i]) for name, trip in round_trips().items() if name != 'factors']
        return results

    want = [work(i) for i in range(8)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        got = list(pool.map(work, list(range(8)) * 4))
    for i, results in enumerate(got):
        assert all(same_bits(a, b) for a, b in zip(results, want[i % 8], strict=True))


def run_python(code, *arguments):
    """Runs code in a fresh Python that has no path to the package."""
    environment = {k: v for k, v in os.environ.items()
                   if k not in ('PYTHONPATH', 'QVLMEM_LIBRARY')}
    return subprocess.run([sys.executable, '-c', textwrap.dedent(code), *map(str, arguments)],
                          capture_output=True, text=True, timeout=300, env=environment, check=False)


def test_the_library_alone_is_enough_and_loads_twice(library_path, tmp_path):
    """Also: a second copy registers nothing, says so as an error, and leaves the first working."""
    copy = tmp_path / 'libqvlmem.so'
    shutil.copy(library_path, copy)
    result = run_python('''
        import sys, torch
        library, copy = sys.argv[1:]
        torch.ops.load_library(library)
        torch.ops.load_library(library)
        torch.classes.load_library(library)
        x = torch.randn(8, 33)
        c = torch.ops.qvlmem.compress(x)
        frame = torch.ops.qvlmem.pack(c)
        before = sorted(str(s) for s in torch._C._jit_get_all_schemas() if s.name[:6] == 'qvlmem')
        try:
            torch.ops.load_library(copy)
        except Exception as error:
            told = ''  # the loader's SystemError stands between the library's words and PyTorch's
            while error:
                told += repr(error)
                error = error.__cause__
            assert 'qvlmem' in told and 'copy' in told, told
        else:
            raise SystemExit('a second copy was loaded without an error')
        after = sorted(str(s) for s in torch._C._jit_get_all_schemas() if s.name[:6] == 'qvlmem')
        assert before == after and before
        assert torch.equal(torch.ops.qvlmem.pack(torch.ops.qvlmem.compress(x)), frame)
        y = torch.ops.qvlmem.decompress(torch.ops.qvlmem.unpack(frame))
        assert torch.equal(y, torch.ops.qvlmem.decompress(c))
        assert 'qvlmem' not in sys.modules
        print('fine')
    ''', library_path, copy)
    assert result.returncode == 0 and result.stdout.strip() == 'fine', result.stderr[-3000:]
