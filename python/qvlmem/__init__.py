# SPDX-License-Identifier: Apache-2.0
"""qvlmem: tensors held compressed, for PyTorch.

Importing the package loads libqvlmem.so; its operators are torch.ops.qvlmem.*, its classes
torch.classes.qvlmem.*.
"""

from qvlmem._library import library_path, load_library

load_library()

from qvlmem import _fakes as _fakes  # noqa: E402  (registers for ops that exist only now)
from qvlmem._codecs import compress, decompress, pack, unpack  # noqa: E402

__all__ = ['compress', 'decompress', 'library_path', 'pack', 'unpack']
