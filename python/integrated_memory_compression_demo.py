# SPDX-License-Identifier: Apache-2.0
"""The name under which existing code imports qvlmem's optimizer."""

from qvlmem import IntegratedMemoryOptimizer

__all__ = ['IntegratedMemoryOptimizer']
