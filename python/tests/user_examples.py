# SPDX-License-Identifier: Apache-2.0
"""The examples that users have, as they have them, and what must hold after each.

Each is (code, check). `tensor` is what they compress, `compression_manager` the manager of theirs that they name.
"""

BEFORE = '''
import torch
from memory_compression_system import MemoryCompressionManager

tensor = torch.randn(64, 128)
compression_manager = MemoryCompressionManager()
'''

# One class each.
CLASSES = [
    ('''
from memory_compression_system import QuantizationCompressor

compressor = QuantizationCompressor()
compressed_data = compressor.compress(tensor, method='int8', symmetric=True)
decompressed_tensor = compressor.decompress(compressed_data)
''', '''
assert compressed_data.method() == 'int8'
assert (decompressed_tensor - tensor).norm() < 0.01 * tensor.norm()
'''),
    ('''
from memory_compression_system import SVDCompressor

compressor = SVDCompressor()
compressed_data = compressor.compress(tensor, adaptive_rank=True, compression_ratio=0.5)
decompressed_tensor = compressor.decompress(compressed_data)
''', '''
assert compressed_data.method() == 'svd'
assert (decompressed_tensor - tensor).norm() <= 0.1001 * tensor.norm()
'''),
    ('''
from memory_compression_system import SparseCompressor

compressor = SparseCompressor()
compressed_data = compressor.compress(tensor, sparsity_threshold=0.5)
decompressed_tensor = compressor.decompress(compressed_data)
''', '''
assert compressed_data.method() == 'sparse'
assert (decompressed_tensor == 0).float().mean() >= 0.5
'''),
    ('''
from memory_compression_system import AutoCompressor

compressor = AutoCompressor()
compressed_data = compressor.compress(tensor)
decompressed_tensor = compressor.decompress(compressed_data)
''', '''
assert (decompressed_tensor - tensor).norm() <= 0.01 * tensor.norm()
'''),
    ('''
from memory_compression_system import MemoryCompressionManager

manager = MemoryCompressionManager()
compressed = manager.compress_tensor(tensor, method='auto')
decompressed = manager.decompress_tensor(compressed)
stats = manager.get_compression_stats()
''', '''
assert stats.memory_saved_bytes == stats['memory_saved_bytes'] == tensor.nbytes - compressed.nbytes()
'''),
    ('''
from memory_compression_system import HierarchicalCompressionCache

cache = HierarchicalCompressionCache(compression_manager)
cache.put("key", tensor)
retrieved_tensor = cache.get("key")
''', '''
assert (retrieved_tensor - tensor).norm() <= 0.01 * tensor.norm()
'''),
]

# The sum, in its own language.
INTEGRATED = ('''
from memory_compression_system import create_hardware_optimized_compression_manager
from integrated_memory_compression_demo import IntegratedMemoryOptimizer

# Criar otimizador integrado com configura\u00e7\u00e3o de hardware
hardware_config = {
    'cpu_model': 'Intel i5-10210U',
    'gpu_model': 'NVIDIA SM61', 
    'memory_size': 8 * 1024 * 1024 * 1024,
    'storage_type': 'nvme'
}

optimizer = IntegratedMemoryOptimizer(hardware_config)

# Otimizar mecanismo de aten\u00e7\u00e3o com compress\u00e3o
attention_components = optimizer.optimize_attention_mechanism(
    batch_size=4, seq_len=512, hidden_dim=768, num_heads=12
)

# Obter estat\u00edsticas
stats = optimizer.get_compression_statistics()
print(f"Mem\u00f3ria economizada: {stats.memory_saved_bytes / (1024*1024):.2f} MB")
''', '''
parts = attention_components['components'].values()
assert stats.memory_saved_bytes == sum(part['bytes_before'] - part['bytes_after'] for part in parts)
assert attention_components['output'].shape == (4, 512, 768)
''')

EVERYTHING = ('''
from memory_compression_system import (QuantizationCompressor, SVDCompressor, SparseCompressor, AutoCompressor,
    MemoryCompressionManager, HierarchicalCompressionCache, create_hardware_optimized_compression_manager)
from integrated_memory_compression_demo import IntegratedMemoryOptimizer

hardware_config = {'cpu_model': 'Intel i5-10210U', 'gpu_model': 'NVIDIA SM61', 'memory_size': 8 * 1024**3,
                   'storage_type': 'nvme'}
c = QuantizationCompressor(); d = c.compress(tensor, method='int8', symmetric=True); t = c.decompress(d)
c = SVDCompressor();          d = c.compress(tensor, adaptive_rank=True, compression_ratio=0.5); t = c.decompress(d)
c = SparseCompressor();       d = c.compress(tensor, sparsity_threshold=0.5); t = c.decompress(d)
c = AutoCompressor();         d = c.compress(tensor); t = c.decompress(d)
manager = MemoryCompressionManager(); d = manager.compress_tensor(tensor, method='auto')
t = manager.decompress_tensor(d)
stats = manager.get_compression_stats()
cache = HierarchicalCompressionCache(manager); cache.put("key", tensor); t = cache.get("key")
manager = create_hardware_optimized_compression_manager(hardware_config)

optimizer = IntegratedMemoryOptimizer(hardware_config)
components = optimizer.optimize_attention_mechanism(batch_size=4, seq_len=512, hidden_dim=768, num_heads=12)
stats = optimizer.get_compression_statistics(); print(stats.memory_saved_bytes / (1024*1024))
''', '''
assert components['output'].shape == (4, 512, 768)
assert manager.config()['cpu_budget'] == str(4 * 1024**3)
''')
