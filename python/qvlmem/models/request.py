# SPDX-License-Identifier: Apache-2.0
"""What the main job is asked; plain data, without the imports that carrying it out takes."""

import dataclasses
import pathlib

import torch

DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16, 'fp32': torch.float32}


@dataclasses.dataclass(frozen=True)
class Request:
    """What goes to the processes of both sides.

    model: the folder of a checkpoint. shape: a key of shapes.SHAPES, for seeded weights instead. image: None
    is a default photograph or, for the digit reader, `pages` pages of held-out digits.
    """
    model: pathlib.Path = None
    shape: str = None
    image: pathlib.Path = None
    prompt: str = None
    dtype: str = 'bf16'
    max_error: float = 0.01
    bound: str = 'row'
    tokens: int = 16
    pages: int = 24
    seed: int = 0
