# SPDX-License-Identifier: Apache-2.0
"""The package's classes: compressors, manager, cache, statistics, hardware configuration."""

import pickle
import re

import pytest
import torch

import memory_compression_system as mcs
import qvlmem


@pytest.mark.parametrize('compressor, options, method', [
    (mcs.QuantizationCompressor(), {'method': 'int8', 'symmetric': True}, 'int8'),
    (mcs.QuantizationCompressor(), {'method': 'int4', 'symmetric': False, 'group_size': 32}, 'int4'),
    (mcs.QuantizationCompressor(), {'method': 'fp16'}, 'fp16'),
    (mcs.SVDCompressor(), {'adaptive_rank': True, 'compression_ratio': 0.5}, 'svd'),
    (mcs.SparseCompressor(), {'sparsity_threshold': 0.5}, 'sparse'),
])
def test_a_compressor_uses_its_codec(compressor, options, method):
    tensor = torch.randn(64, 96)
    compressed = compressor.compress(tensor, **options)
    assert compressed.method() == method
    decompressed = compressor.decompress(compressed)
    assert decompressed.shape == tensor.shape and decompressed.dtype == tensor.dtype
    error = ((decompressed - tensor).norm() / tensor.norm()).item()
    assert error == pytest.approx(compressed.relative_error(), rel=1e-3, abs=1e-7)


def test_the_quantization_compressor_takes_its_own_methods_only():
    with pytest.raises(ValueError, match="int8, int4 or fp16, got 'svd'"):
        mcs.QuantizationCompressor().compress(torch.ones(4), method='svd')


def test_auto_meets_its_bound():
    tensor = torch.randn(64, 96)
    compressor = mcs.AutoCompressor(max_error=0.003, bound='row')
    decompressed = compressor.decompress(compressor.compress(tensor))
    rows = (decompressed - tensor).norm(dim=1) / tensor.norm(dim=1)
    assert rows.max() <= 0.003


def test_statistics_are_live_attributes_and_a_mapping():
    manager = mcs.MemoryCompressionManager()
    statistics = manager.get_compression_stats()
    assert statistics.compression_attempts == 0
    compressed = manager.compress_tensor(torch.randn(256, 128), method='int8')
    manager.decompress_tensor(compressed)
    held = sum(part.untyped_storage().nbytes() for part in compressed.parts())
    assert statistics.compression_attempts == statistics['compression_attempts'] == 1
    assert statistics.memory_saved_bytes == 256 * 128 * 4 - held
    assert statistics.average_compression_ratio == pytest.approx(compressed.ratio())
    assert statistics.decompression_time_seconds > 0
    assert set(dict(statistics)) == {
        'tensors_compressed', 'compression_attempts', 'average_compression_ratio',
        'compression_time_seconds', 'decompression_time_seconds', 'memory_saved_bytes', 'gpu_bytes',
        'cpu_bytes', 'ssd_bytes', 'hits', 'misses', 'evictions', 'spill_write_bytes',
        'spill_read_bytes'}
    assert 'hits' in dir(statistics) and 'memory_saved_bytes=' in repr(statistics)
    with pytest.raises(AttributeError, match='no_such_count'):
        statistics.no_such_count
    manager.reset_stats()
    assert statistics.compression_attempts == 0


def test_the_cache_keeps_within_its_budget_and_names_missing_keys():
    manager = mcs.MemoryCompressionManager('method:none')
    cache = mcs.HierarchicalCompressionCache(manager, 'cpu_budget:1KiB')
    tensor = torch.randn(128)
    cache.put('key', tensor)
    assert torch.equal(cache.get('key'), tensor)
    with pytest.raises(torch.OutOfMemoryError, match="'other'"):
        cache.put('other', torch.randn(200))
    assert cache.keys() == ['key'] and 'key' in cache and len(cache) == 1
    assert cache.tier_of('key') == 'cpu'
    with pytest.raises(IndexError, match="'missing'"):
        cache.get('missing')
    assert cache.stats().cpu_bytes == 512 and cache.stats().misses == 1
    assert cache.remove('key') and not cache.remove('key')
    cache.clear()


def test_the_cache_takes_what_a_pool_holds():
    manager = mcs.MemoryCompressionManager()
    cache = mcs.HierarchicalCompressionCache(manager)
    pool = torch.classes.qvlmem.MemoryPool('kv_cache')
    compressed = manager.compress_tensor(torch.randn(64, 128))
    cache.put_compressed('key', pool.hold(compressed))
    assert torch.equal(cache.get('key'), manager.decompress_tensor(compressed))
    assert cache.stats().cpu_bytes == pool.stats()['allocated_bytes'] == compressed.nbytes()
    assert manager.get_compression_stats().compression_attempts == 1
    cache.clear()
    assert pool.stats()['allocated_bytes'] == 0


def test_the_default_cache_has_a_manager_of_its_own():
    cache = mcs.HierarchicalCompressionCache()
    cache.put('key', torch.ones(10, 10))
    assert cache.manager.get_compression_stats().compression_attempts == 1


def test_hardware_changes_the_configuration():
    make = mcs.create_hardware_optimized_compression_manager
    laptop = make({'cpu_model': 'Intel i5-10210U', 'gpu_model': 'NVIDIA SM61',
                   'memory_size': 8 * 1024**3, 'storage_type': 'nvme'}).config()
    assert laptop['cpu_budget'] == str(4 * 1024**3)
    assert laptop['io'] == 'uring' and laptop['threads'] == '4' and laptop['prefer'] == 'size'
    workstation = make({'memory_size': 64 * 1024**3}).config()
    assert workstation['cpu_budget'] == str(32 * 1024**3) and workstation['prefer'] == 'balanced'
    slow_disk = make({'storage_type': 'HDD', 'memory_size': 64 * 1024**3}).config()
    assert slow_disk['io'] == 'threads' and slow_disk['prefer'] == 'size'
    assert make({}).config() == mcs.MemoryCompressionManager().config()
    assert make().config()['cpu_budget'].isdecimal()


@pytest.mark.parametrize('bad, error, words', [
    ({'colour': 'red'}, ValueError, "'colour'; accepted: cpu_model, gpu_model, memory_size, storage_type"),
    ({'memory_size': -1}, ValueError, "-1 for key 'memory_size'; accepted: bytes above 0"),
    ({'memory_size': '8GiB'}, ValueError, "'8GiB' for key 'memory_size'"),
    ({'memory_size': float('nan')}, ValueError, "nan for key 'memory_size'"),
    ({'storage_type': 'tape'}, ValueError, "'tape' for key 'storage_type'; accepted: nvme, ssd, hdd"),
    ({'storage_type': 3}, ValueError, "3 for key 'storage_type'"),
    ({'gpu_model': 61}, ValueError, "61 for key 'gpu_model'; accepted: a GPU's name"),
    ({'cpu_model': ['i5']}, ValueError, "for key 'cpu_model'; accepted: a CPU's name"),
    ('laptop', TypeError, "expected a dict or None, got 'laptop'"),
], ids=str)
def test_bad_hardware_is_named(bad, error, words):
    with pytest.raises(error, match=f'^hardware_config: .*{re.escape(words)}'):
        mcs.create_hardware_optimized_compression_manager(bad)


def test_what_a_machine_prefers_is_done():
    tensor = torch.randn(64, 8) @ torch.randn(8, 512)
    methods = {size: mcs.create_hardware_optimized_compression_manager({'memory_size': size * 1024**3})
               .compress_tensor(tensor).method() for size in (8, 64)}
    assert methods[8] == 'svd' != methods[64]


def test_classes_pickle_as_their_configuration():
    classes = torch.classes.qvlmem
    manager = classes.CompressionManager('method:int4')
    cache = classes.HierarchicalCache(manager, 'cpu_budget:1MiB')
    cache.put('key', torch.ones(4))
    copy = pickle.loads(pickle.dumps(cache))
    assert list(copy.keys()) == []
    copy.put('key', torch.randn(1000))
    pool = pickle.loads(pickle.dumps(classes.MemoryPool('weights', 'cpu_budget:1MiB')))
    assert pool.empty([10], torch.float32).shape == (10,)
    with pytest.raises(torch.OutOfMemoryError):
        pool.empty([1 << 20], torch.float32)


def test_a_pool_reuses_its_memory():
    pool = torch.classes.qvlmem.MemoryPool('kv_cache')
    address = pool.empty([1000], torch.bfloat16).data_ptr()
    assert pool.empty([999], torch.bfloat16).data_ptr() == address
    assert pool.stats()['hits'] == 1
    pool.trim()
    assert pool.stats()['reserved_bytes'] == 0


def test_the_package_names_what_the_contract_names():
    assert qvlmem.library_path().endswith('.so')
    for name in mcs.__all__:
        assert getattr(qvlmem, name) is getattr(mcs, name)
