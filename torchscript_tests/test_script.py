# SPDX-License-Identifier: Apache-2.0
"""Scripted functions and modules give what eager mode gives: compiled, frozen, saved, loaded alone."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from cuda_device import on
from effect_programs import Effects
from script_programs import CompressedLinear, QuantizedLinear, alike, programs, swapped

METHODS = ('none', 'int8', 'int4', 'fp16', 'bounded', 'svd', 'sparse', 'lossless')
PROGRAMS = programs()
by_program = pytest.mark.parametrize(('name', 'function', 'arguments'), PROGRAMS,
                                     ids=[p[0] for p in PROGRAMS])


@pytest.mark.each_device
@by_program
def test_scripted_functions_give_what_eager_mode_gives(device, name, function, arguments):
    scripted = torch.jit.script(function)
    arguments = [on(device, a) for a in arguments]
    want = function(*arguments)
    for _ in range(3):  # the profiling executor specialises on the second and third run
        assert alike(scripted(*arguments), want)


@pytest.mark.each_device
@by_program
def test_other_shapes_follow_the_specialised_ones(device, name, function, arguments):
    """A graph that was specialised for one shape and layout must not keep them."""
    arguments = [on(device, a) for a in arguments]
    if name in ('factored',):
        other = arguments[0][:20, :30]
    else:
        other = arguments[0].t()
    scripted = torch.jit.script(function)
    for first in (arguments[0], arguments[0], other, arguments[0][:1], other):
        assert alike(scripted(first, *arguments[1:]), function(first, *arguments[1:]))


@pytest.mark.parametrize('method', METHODS)
def test_modules_hold_compressed_tensors(method, tmp_path):
    weight = torch.randn(40, 3) @ torch.randn(3, 72)
    module = CompressedLinear(weight, method).eval()
    x = torch.randn(5, 72)
    want = module(x)
    scripted = torch.jit.script(module)
    assert torch.equal(scripted(x), want) and scripted.held() == module.held()
    scripted.save(str(tmp_path / 'module.pt'))
    loaded = torch.jit.load(str(tmp_path / 'module.pt'))
    assert torch.equal(loaded(x), want) and loaded.held() == module.held()
    assert loaded.weight.method() == method
    assert loaded.weight.relative_error() == module.weight.relative_error()
    frozen = torch.jit.freeze(scripted, preserved_attrs=['held'])
    assert torch.equal(frozen(x), want) and frozen.held() == module.held()


def test_freezing_and_optimising_keep_results():
    module = QuantizedLinear(torch.randn(40, 72)).eval()
    x = torch.randn(5, 72)
    want = module(x)
    scripted = torch.jit.script(module)
    frozen = torch.jit.freeze(scripted)
    assert torch.equal(frozen(x), want)
    optimised = torch.jit.optimize_for_inference(torch.jit.script(module))
    for _ in range(3):
        assert torch.allclose(optimised(x), want, rtol=1e-5, atol=1e-5)


def test_objects_are_passed_and_returned():
    a = torch.ops.qvlmem.compress(torch.ones(3, 4), 'none')
    b = torch.ops.qvlmem.compress(torch.ones(5), 'int8')
    scripted = torch.jit.script(swapped)
    assert scripted(a, b, False).shape() == [3, 4]
    assert scripted(a, b, True).shape() == [5] and scripted(a, b, True).method() == 'int8'


def test_traced_functions_keep_the_operators():
    def trip(x):  # the tracer takes no shape of a tensor as an argument of a custom operator
        q, scale, zero_point = torch.ops.qvlmem.quantize(x, 8, True, 32)
        return torch.ops.qvlmem.dequantize(q, scale, zero_point, [6, 64], 8, 32) + x

    traced = torch.jit.trace(trip, torch.randn(6, 64))
    x = torch.randn(6, 64)
    assert torch.equal(traced(x), trip(x))
    assert 'qvlmem::quantize' in str(traced.graph)


def test_errors_reach_the_caller_of_a_script():
    @torch.jit.script
    def bad(x: torch.Tensor, method: str) -> int:
        return torch.ops.qvlmem.compress(x, method).nbytes()

    with pytest.raises(Exception, match=r"qvlmem::compress: expected method .*got 'zip'"):
        bad(torch.ones(3), 'zip')
    with pytest.raises(Exception, match='qvlmem::compress: expected bound'):
        torch.jit.script(_bad_bound)(torch.ones(3))
    assert bad(torch.ones(3), 'none') == 12


def _bad_bound(x: torch.Tensor) -> int:
    return torch.ops.qvlmem.compress(x, bound='rows').nbytes()


def test_forked_tasks_run_the_operators():
    scripted = torch.jit.script(_forked)
    x = torch.randn(8, 129)
    for _ in range(3):
        assert torch.equal(scripted(x), _forked(x))


def _trip(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.qvlmem.decompress(torch.ops.qvlmem.compress(x, 'int8'))


def _forked(x: torch.Tensor) -> torch.Tensor:
    tasks = [torch.jit.fork(_trip, x + i) for i in range(8)]
    return torch.stack([torch.jit.wait(task) for task in tasks])


def run_alone(code, *arguments):
    """What code prints in a fresh Python that is told nothing of the package."""
    environment = {k: v for k, v in os.environ.items()
                   if k not in ('PYTHONPATH', 'QVLMEM_LIBRARY')}
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(code), *map(str, arguments)],
                            capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.strip()


LOADER = '''
    import sys, torch
    library, folder = sys.argv[1:]
    torch.ops.load_library(library)
    cases = torch.load(folder + '/cases.pt', weights_only=False)
    for name, (arguments, want) in cases.items():
        program = torch.jit.load(folder + '/' + name + '.pt')
        got = program(*arguments)
        flat = lambda v: [w for u in v for w in flat(u)] if isinstance(v, (list, tuple)) else [v]
        for a, b in zip(flat(got), flat(want), strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name
    assert 'qvlmem' not in sys.modules
    print(len(cases))
'''


def test_saved_programs_run_in_a_process_that_only_loads_the_library(library, tmp_path):
    cases = {}
    for name, function, arguments in PROGRAMS:
        torch.jit.script(function).save(str(tmp_path / f'{name}.pt'))
        cases[name] = (arguments, function(*arguments))
    x = torch.randn(5, 72)
    for method in METHODS:
        module = CompressedLinear(torch.randn(40, 3) @ torch.randn(3, 72), method).eval()
        torch.jit.script(module).save(str(tmp_path / f'linear_{method}.pt'))
        cases[f'linear_{method}'] = ((x,), module(x).detach())
    torch.save(cases, tmp_path / 'cases.pt')
    assert run_alone(LOADER, library, tmp_path) == str(len(cases))


OBJECT_LOADER = '''
    import sys, torch
    library, folder = sys.argv[1:]
    torch.ops.load_library(library)
    x, want = torch.load(folder + '/case.pt')
    for name in ('module', 'frozen'):
        module = torch.jit.load(folder + '/' + name + '.pt')
        assert list(module.cache.keys()) == []
        assert module.cache.stats()['hits'] == module.cache.stats()['cpu_bytes'] == 0
        assert module.manager.get_compression_stats()['compression_attempts'] == 0
        assert module.manager.config()['method'] == 'int8'
        assert module.pool.stats()['reserved_bytes'] == 0
        for call in (lambda: module.pool.empty([1 << 20], torch.float32),
                     lambda: module.cache.put('key', torch.randn(1 << 22))):
            try:
                call()
            except torch.OutOfMemoryError as error:
                assert 'cpu_budget' in str(error)
            else:
                raise SystemExit('a budget did not come along')
        module.pool.trim()
        module = torch.jit.load(folder + '/' + name + '.pt')
        tensors, numbers = module(x)
        assert numbers == want[1] and all(map(torch.equal, tensors, want[0])), name
    assert 'qvlmem' not in sys.modules
    print('fine')
'''


def test_saved_objects_load_empty_with_their_configuration(library, tmp_path):
    x = torch.randn(16, 72)
    scripted = torch.jit.script(Effects().eval())
    frozen = torch.jit.freeze(scripted, preserved_attrs=['manager', 'cache', 'pool'])
    torch.save((x, Effects()(x)), tmp_path / 'case.pt')
    scripted(x)
    scripted.cache.put('kept', x)
    scripted.save(str(tmp_path / 'module.pt'))
    frozen.save(str(tmp_path / 'frozen.pt'))
    assert list(scripted.cache.keys()) == ['kept']
    assert run_alone(OBJECT_LOADER, library, tmp_path) == 'fine'
