# SPDX-License-Identifier: Apache-2.0
"""What all files of tensors have in common for those who read them."""

import dataclasses

import torch

# What readers of damaged bytes raise.
DAMAGE = (ValueError, TypeError, NotImplementedError, EOFError)


@dataclasses.dataclass(frozen=True)
class Item:
    """Something stored once, under one name, several (tied tensors) or none (the value of the file)."""
    dtype: str  # of the original, PyTorch's name
    shape: tuple
    stored_bytes: int
    is_compressed: bool = False  # it was saved as a CompressedTensor
    checksum: str = ''  # of its frame, where it has one


class Source:
    """An open file of tensors, which the end of a with statement closes. path: for errors.

    metadata: {str: str}. items: [Item]. names: [(name, number of the item)] in the order of the dict, each
    item at least once; or None, where the one item is the value. Readers raise ValueError for what is damaged.
    """

    def __init__(self, path, file, metadata, items, names):
        self.path, self._file = path, file
        self.metadata, self.items, self.names = metadata, items, names

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()

    def value(self, number):
        """The tensor, or the CompressedTensor that it was saved as."""
        raise NotImplementedError

    def values(self):
        """All values in order, a few at a time; errors as read has them."""
        for number in range(len(self.items)):
            yield self.read(number)

    def tensor(self, number):
        """The same, decompressed in any case."""
        value = self.value(number)
        return value if isinstance(value, torch.Tensor) else torch.ops.qvlmem.decompress(value)

    def names_by_item(self):
        """For each item the list of its names."""
        names = [[] for _ in self.items]
        for name, number in self.names or ():
            names[number].append(name)
        return names

    def label(self, number):
        """What errors call an item."""
        names = self.names_by_item()[number]
        return f'tensor {names[0]!r}' if names else 'its tensor'

    def read(self, number, how=None):
        """value(number), or how(number); ValueError with the file's and the tensor's name."""
        try:
            return (how or self.value)(number)
        except DAMAGE as error:
            raise ValueError(f'{self.path}: {self.label(number)} is damaged: {error}') from None
