# SPDX-License-Identifier: Apache-2.0
"""CUDA tensors on streams, in graphs and in scripts, on every device, in memory."""

import warnings

import pytest
import torch

from cuda_device import check_same, on_cuda, require_cuda  # noqa: F401  (a fixture)
from strategies import same_bits, tensor_error, values

pytestmark = pytest.mark.cuda

# Methods of compress that wait: all but none, which keeps what it is given.
REFUSED = ('auto', 'int8', 'int4', 'fp16', 'bounded', 'svd', 'sparse', 'lossless')


def test_work_is_ordered_on_the_current_stream(ops):
    """The input is still being made when the operator is called, and nobody waits for the other stream."""
    x = torch.randn(2048, 2048, device='cuda')
    want = ops.quantize((x @ x).cpu(), 8, True, 128)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    for _ in range(5):
        with torch.cuda.stream(stream):
            q, scale, _ = ops.quantize(x @ x, 8, True, 128)
            y = ops.dequantize(q, scale, q.new_empty(0, dtype=torch.int32), q.shape, 8, 128)
        stream.synchronize()
        assert same_bits(q.cpu(), want[0]) and same_bits(scale.cpu(), want[1])
        assert torch.isfinite(y).all()


def test_graphs_replay_with_new_values(ops):
    """Ops with static sizes can be captured; NaN is then not refused but marks its group's scale."""
    x = torch.randn(64, 256, device='cuda')

    def work(t):
        q, scale, zero_point = ops.quantize(t, 8, False, 64)
        half, factor = ops.to_fp16(t)
        indices = torch.arange(0, t.numel(), 3, device=t.device)
        return (scale, ops.dequantize(q, scale, zero_point, t.shape, 8, 64), half,
                ops.from_fp16(half, factor), ops.densify(indices, t.flatten()[::3], t.shape),
                ops.profile_values(t))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work(x)
    for seed in range(3):
        fresh = values('normal', (64, 256), torch.float32, seed)
        x.copy_(fresh)
        graph.replay()
        check_same(captured, work(fresh))
    x[5, 70] = float('nan')
    graph.replay()
    scale = captured[0].cpu()
    assert scale[5, 1].isnan() and int(scale.isnan().sum()) == 1


def test_graphs_replay_decoding_lossless_bytes(ops):
    """What the device cannot decode is not refused then, but comes back as NaN."""
    x = values('normal', (64, 256), torch.float32)
    data = on_cuda(ops.lossless_encode(x))
    ops.lossless_decode(data, x.shape, x.dtype)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.lossless_decode(data, x.shape, x.dtype)
    graph.replay()
    assert same_bits(captured.cpu(), x)
    data[4] ^= 1
    graph.replay()
    assert bool(captured.isnan().all())


@pytest.mark.parametrize('method', ['sparse', 'bounded'])
def test_graphs_replay_decompressing(ops, method):
    """Damage comes back as NaN: of the counts of all units, and of the first byte of the first one."""
    x = values('sparse', (64, 256), torch.float32)
    # What is coded by entropy goes by the host, which a captured stream cannot wait for.
    c = torch.classes.qvlmem.CompressionManager('prefer:balanced').compress_tensor(on_cuda(x), method)
    want = ops.decompress(c)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.decompress(c)
    graph.replay()
    assert same_bits(captured.cpu(), want.cpu())
    c.parts()[0 if method == 'sparse' else 2][0] ^= 1
    graph.replay()
    assert bool(captured.flatten()[:4096].isnan().all())


def test_graphs_replay_densify_with_other_indices(ops):
    indices = torch.arange(0, 20000, 3, device='cuda')
    kept = torch.randn(indices.numel(), device='cuda')
    ops.densify(indices, kept, [20000])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.densify(indices, kept, [20000])
    indices += 1
    graph.replay()
    assert same_bits(captured.cpu(), ops.densify(indices, kept, [20000]).cpu())
    indices[7] = -1
    graph.replay()
    assert bool(captured[:4096].isnan().all()) and not bool(captured[8192:].isnan().any())


def waits_of(function, capfd):
    """How often PyTorch tells of a wait for the device: on stderr, for what operators that are called by torch.ops
    warn of does not reach Python's warnings."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode('warn')
    try:
        capfd.readouterr()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            function()
        told = [capfd.readouterr().err, *(str(warning.message) for warning in caught)]
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return sum(text.count('called a synchronizing CUDA operation') for text in told)


def test_svd_waits_once_where_one_block_or_a_given_rank_does(ops, capfd):
    flag = torch.zeros(1, device='cuda')
    assert waits_of(lambda: [torch.ops.aten.item(flag), flag.cpu()], capfd) == 2, 'waits are not told of'
    low = torch.randn(400, 8, device='cuda') @ torch.randn(8, 300, device='cuda')
    flat = torch.randn(400, 300, device='cuda')
    for x, keywords in ((low, {}), (flat, {'rank': 40}), (flat[:40], {}), (flat[:, :40], {})):
        ops.svd(x, **keywords)  # handles and the like are made
        torch.cuda.synchronize()
        assert waits_of(lambda x=x, keywords=keywords: ops.svd(x, **keywords), capfd) == 1


def test_svd_reconstruct_can_be_captured(ops):
    u, v = torch.randn(64, 8, device='cuda'), torch.randn(8, 96, device='cuda')
    ops.svd_reconstruct(u, v, [64, 96], torch.float16)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.svd_reconstruct(u, v, [64, 96], torch.float16)
    for scale in (1.0, 1e6, 3e37):
        u.copy_(torch.randn(64, 8) * scale)
        graph.replay()
        assert same_bits(captured.cpu(), ops.svd_reconstruct(u, v, [64, 96], torch.float16).cpu())


@pytest.mark.parametrize(('op', 'arguments'), [('svd', ()), ('sparsify', ()), ('lossless_encode', ()), ('profile', ()),
                                               *(('compress', (method,)) for method in REFUSED)], ids=str)
def test_what_must_reach_the_host_refuses_capture(ops, op, arguments):
    """Before it has done what a captured stream must not, so that the capture goes on."""
    x = torch.randn(64, 96, device='cuda')
    getattr(ops, op)(x.mul_(2), *arguments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x.mul_(2)
        with pytest.raises(RuntimeError, match='no CUDA graph to be captured'):
            getattr(ops, op)(x, *arguments)
    want = x * 2
    graph.replay()
    assert torch.equal(x, want)


def test_frames_and_coded_values_refuse_capture(ops):
    x = on_cuda(values('normal', (64, 256), torch.float32))
    coded, whole = ops.compress(x, 'bounded'), ops.compress(x.mul_(2), 'none')
    torch.cuda.synchronize()
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        x.mul_(2)
        for function, c in ((ops.decompress, coded), (ops.pack, whole)):
            with pytest.raises(RuntimeError, match='no CUDA graph to be captured'):
                function(c)


def test_scripted_programs(ops):
    @torch.jit.script
    def program(x: torch.Tensor):
        q, scale, zero_point = torch.ops.qvlmem.quantize(x, 4, False, 32)
        y = torch.ops.qvlmem.dequantize(q, scale, zero_point, x.shape, 4, 32, x.dtype)
        c = torch.ops.qvlmem.compress(x, 'int8')
        return y, torch.ops.qvlmem.decompress(c)

    x = values('normal', (12, 129), torch.float16)
    for _ in range(3):
        check_same(program(on_cuda(x)), program(x))


def test_every_device_does_its_own(ops):
    if torch.cuda.device_count() < 2:
        pytest.skip('one CUDA device')
    x = values('normal', (64, 129), torch.float32)
    with torch.cuda.device(0):
        q, scale, zero_point = ops.quantize(x.to('cuda:1'), 8, False, 32)
        assert {t.device.index for t in (q, scale, zero_point)} == {1}
        y = ops.dequantize(q, scale, zero_point, x.shape, 8, 32)
        assert torch.cuda.current_device() == 0
    assert same_bits(y.cpu(), ops.dequantize(*ops.quantize(x, 8, False, 32), x.shape, 8, 32))


def test_a_cache_holds_on_the_cpu_what_comes_from_the_gpu():
    cache = torch.classes.qvlmem.HierarchicalCache(torch.classes.qvlmem.CompressionManager('method:int8'))
    x = on_cuda(values('normal', (512, 512), torch.float32))
    cache.put('key', x)
    before = torch.cuda.memory_allocated()
    y = cache.get('key')
    assert y.device == x.device and tensor_error(x, y) < 0.02 and cache.tier_of('key') == 'cpu'
    del y
    cache.remove('key')
    assert torch.cuda.memory_allocated() == before


def test_more_elements_than_32_bits_count(ops):
    count = 2**31 + 77
    if torch.cuda.mem_get_info()[0] < 7 * count:  # 6 are taken while densified values are compared
        pytest.skip('needs 14 GiB of free device memory')
    x = torch.zeros(count, dtype=torch.float16, device='cuda')
    tail = values('normal', (1000,), torch.float16)
    x[-1000:] = tail
    q, scale, zero_point = ops.quantize(x)
    want = ops.quantize(torch.cat([torch.zeros(8, dtype=torch.float16), tail]))
    assert same_bits(q[-1000:].cpu(), want[0][-1000:]) and same_bits(scale.cpu(), want[1])
    indices, kept = ops.sparsify(x, 0.5)
    assert indices.dtype == torch.int64 and same_bits(kept.cpu(), tail[tail != 0])
    assert torch.equal(indices.cpu(), (tail != 0).nonzero().flatten() + (count - 1000))
    assert torch.equal(ops.densify(indices, kept, [count]), x)
    del x
    y = ops.dequantize(q, scale, zero_point, [count], dtype=torch.float16)
    assert same_bits(y[-1000:].cpu(), ops.dequantize(*want, [1008], dtype=torch.float16)[-1000:])
    assert int(y[:-1000].count_nonzero()) == 0


def test_memory_of_failed_calls_is_given_back(ops):
    x = torch.full((1 << 20,), float('nan'), device='cuda')
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        with pytest.raises(ValueError):
            ops.quantize(x, 8, True, 128)
    assert torch.cuda.memory_allocated() == before
