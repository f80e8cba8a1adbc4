# SPDX-License-Identifier: Apache-2.0
"""The vision tower's features, held compressed by image: a second question about one looks them up."""

import functools
import hashlib

import torch

from qvlmem.models.ledger import DEEPSTACK, VISION


class HeldFeatures:
    """Stands before the vision tower of a Qwen3-VL.

    The merged features and those of the DeepStack taps are held compressed for each (pixels, grid) that it
    has seen. All of an image come back as a prefill begins, for transformers takes them together.
    """

    def __init__(self, model, ledger):
        self.ledger = ledger
        self.images = {}  # digest: (the class of the tower's output, merged, taps)
        self.hits = 0
        tower = model.model.visual
        tower.forward = functools.partial(self._forward, tower.forward)

    def alive(self):
        alive = {VISION: [], DEEPSTACK: []}
        for _, merged, taps in self.images.values():
            alive[VISION] += merged.parts()
            alive[DEEPSTACK] += [part for tap in taps for part in tap.parts()]
        return alive

    def original_bytes(self):
        """{kind: bytes} that the features would take as they came."""
        return {VISION: sum(merged.original_nbytes() for _, merged, _ in self.images.values()),
                DEEPSTACK: sum(tap.original_nbytes() for *_, taps in self.images.values() for tap in taps)}

    def clear(self):
        self.images.clear()

    def _forward(self, plain, hidden_states, grid_thw, **options):
        key = _digest(hidden_states, grid_thw)
        if key in self.images:
            self.hits += 1
        else:
            output = plain(hidden_states, grid_thw, **options)
            merged = self.ledger.compress(VISION, 'merged', output.pooler_output)
            taps = [self.ledger.compress(DEEPSTACK, f'tap {index}', feature)
                    for index, feature in enumerate(output.deepstack_features)]
            self.images[key] = type(output), merged, taps
        kind, merged, taps = self.images[key]
        return kind(pooler_output=self.ledger.decompress(VISION, merged),
                    deepstack_features=[self.ledger.decompress(DEEPSTACK, tap) for tap in taps])


def _digest(*tensors):
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.digest()
