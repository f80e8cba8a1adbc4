# SPDX-License-Identifier: Apache-2.0
"""Pages of scanned digits (scikit-learn's), and what can be asked about them."""

import dataclasses
import importlib.util
import math

import torch
from torch.nn import functional

from qvlmem.commands import CommandError

CELL = 32  # pixels a digit is high and wide: one merged patch of the vision tower
SMALLEST, LARGEST = (2, 3), (6, 8)  # rows, columns
HELD_OUT = 5  # every fifth digit is kept from training

WHOLE_PAGE = 'Read the page.'
ONE_ROW = 'Read row {}.'
ROW_END = '/'


@dataclasses.dataclass
class Pages:
    """Pages of one size. images: uint8 [pages, height, width]; digits: int64 [pages, rows, columns]."""
    images: torch.Tensor
    digits: torch.Tensor

    def question(self, row=None):
        """The prompt that asks for `row` (from 0), or for all of them."""
        return WHOLE_PAGE if row is None else ONE_ROW.format(row + 1)

    def answer(self, page, row=None):
        """What is to be answered: digits and row ends with spaces between, such as '3 1 4 / 1 5 9 /'."""
        rows = self.digits[page] if row is None else self.digits[page, row:row + 1]
        return ' '.join(' '.join([*map(str, digits), ROW_END]) for digits in rows.tolist())


class DigitPages:
    """Draws pages, seeded, from the digits for training or from those held out.

    The digits are rotated by up to 12 degrees, moved by up to 3 pixels, scaled by up to a tenth, set in dark ink
    on light paper, and noise is laid over them.
    """

    def __init__(self, held_out, seed=0):
        if importlib.util.find_spec('sklearn') is None:
            raise CommandError('the pages need scikit-learn, which is not installed')
        from sklearn import datasets
        digits = datasets.load_digits()
        wanted = torch.arange(len(digits.target)) % HELD_OUT == HELD_OUT - 1
        wanted = wanted if held_out else ~wanted
        self.scans = torch.from_numpy(digits.images).float()[wanted, None] / 16
        self.labels = torch.from_numpy(digits.target).long()[wanted]
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, pages, rows, columns):
        """`pages` pages with `rows` rows of `columns` digits."""
        count = pages * rows * columns
        chosen = torch.randint(len(self.labels), (count,), generator=self.generator)
        cells = self._placed(self.scans[chosen])
        sheet = cells.view(pages, rows, columns, CELL, CELL).transpose(2, 3)
        sheet = sheet.reshape(pages, rows * CELL, columns * CELL)
        ink = self._uniform((pages, 1, 1), 0.7, 1)
        paper = self._uniform((pages, 1, 1), 0.85, 1)
        noise = 0.04 * torch.randn(sheet.shape, generator=self.generator)
        images = (paper - ink * sheet + noise).clamp(0, 1).mul(255).round().to(torch.uint8)
        return Pages(images, self.labels[chosen].view(pages, rows, columns))

    def draw_size(self):
        """A random page size, (rows, columns)."""
        return tuple(int(torch.randint(low, high + 1, (), generator=self.generator))
                     for low, high in zip(SMALLEST, LARGEST))

    def _uniform(self, shape, low, high):
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def _placed(self, scans):
        count = len(scans)
        angle = self._uniform((count,), -1, 1) * math.radians(12)
        scale = self._uniform((count,), 1.1, 1.3)  # of the cell, in digits: a margin stays around each
        shift = self._uniform((count, 2), -1, 1) * (2 * 3 / CELL)
        cos, sin = scale * angle.cos(), scale * angle.sin()
        inverse = torch.stack((torch.stack((cos, -sin, shift[:, 0]), 1),
                               torch.stack((sin, cos, shift[:, 1]), 1)), 1)
        grid = functional.affine_grid(inverse, (count, 1, CELL, CELL), align_corners=False)
        return functional.grid_sample(scans, grid, align_corners=False).squeeze(1)
