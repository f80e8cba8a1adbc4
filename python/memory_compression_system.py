# SPDX-License-Identifier: Apache-2.0
"""The names under which existing code imports qvlmem."""

from qvlmem import (
    AutoCompressor,
    HierarchicalCompressionCache,
    MemoryCompressionManager,
    QuantizationCompressor,
    SparseCompressor,
    SVDCompressor,
    create_hardware_optimized_compression_manager,
)

__all__ = [
    'AutoCompressor',
    'HierarchicalCompressionCache',
    'MemoryCompressionManager',
    'QuantizationCompressor',
    'SVDCompressor',
    'SparseCompressor',
    'create_hardware_optimized_compression_manager',
]
