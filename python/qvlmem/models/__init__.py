# SPDX-License-Identifier: Apache-2.0
"""Qwen3-VL as transformers has it, and its tensors held compressed."""
