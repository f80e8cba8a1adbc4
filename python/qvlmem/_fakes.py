# SPDX-License-Identifier: Apache-2.0
"""Fake kernels of the ops whose output sizes depend on the data.

PyTorch takes these from Python alone (torch.library.get_ctx().new_dynamic_size()). All other ops have
theirs in the library itself.
"""
