# SPDX-License-Identifier: Apache-2.0
"""qvlmem: tensors held compressed, for PyTorch.

Importing the package loads libqvlmem.so; its operators are torch.ops.qvlmem.*, its classes
torch.classes.qvlmem.*.
"""

import sys

from qvlmem._library import library_path, load_library


def _is_command_line():
    """True in `python -m qvlmem`, whose doctor has to run where the library is missing.

    While Python looks for a module to run, sys.argv[0] is '-m'.
    """
    pairs = zip(sys.orig_argv, sys.orig_argv[1:])
    return sys.argv[:1] == ['-m'] and any(
        option.startswith('-') and option.endswith('m') and module == 'qvlmem'
        for option, module in pairs)


if not _is_command_line():
    load_library()
    from qvlmem import _fakes as _fakes  # (registers for ops that exist only now)

from qvlmem._codecs import compress, decompress, pack, unpack  # noqa: E402
from qvlmem._types import CompressedTensor  # noqa: E402
from qvlmem.compressors import (  # noqa: E402
    AutoCompressor,
    QuantizationCompressor,
    SparseCompressor,
    SVDCompressor,
)
from qvlmem.files import load, save  # noqa: E402
from qvlmem.hardware import create_hardware_optimized_compression_manager  # noqa: E402
from qvlmem.manager import HierarchicalCompressionCache, MemoryCompressionManager  # noqa: E402
from qvlmem.optimizer import IntegratedMemoryOptimizer  # noqa: E402

__all__ = [
    'AutoCompressor',
    'CompressedTensor',
    'HierarchicalCompressionCache',
    'IntegratedMemoryOptimizer',
    'MemoryCompressionManager',
    'QuantizationCompressor',
    'SVDCompressor',
    'SparseCompressor',
    'compress',
    'create_hardware_optimized_compression_manager',
    'decompress',
    'library_path',
    'load',
    'pack',
    'save',
    'unpack',
]
