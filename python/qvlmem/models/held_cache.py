# SPDX-License-Identifier: Apache-2.0
"""A KV cache for transformers that holds keys and values compressed and compresses only what is new."""

import dataclasses

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from qvlmem.models.ledger import KEYS, VALUES

TAIL = 32  # tokens that are kept as they came until there are so many of them


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Consecutive tokens of one sequence; of the tensors [1, heads, tokens, head_dim] the first `tokens` count.

    Chunks are never written to, so that sequences (beams) with a past in common share its chunks.
    """
    keys: object
    values: object
    tokens: int


class CompressedLayer(CacheLayerMixin):
    """One layer: a list of chunks for each sequence, and a tail that is not compressed yet."""

    is_sliding = False
    is_croppable = True
    supports_early_init = False  # its first tensors tell it all it needs

    def __init__(self, ledger, index):
        super().__init__()
        self.ledger = ledger
        self.index = index
        self.chunks = []  # one list a sequence
        self.bytes_a_token = 0
        # keys and values of the base class: the tail, [sequences, heads, tokens, head_dim]

    def lazy_initialization(self, key_states, value_states):
        self.dtype, self.device = key_states.dtype, key_states.device
        self.bytes_a_token = key_states.shape[1] * key_states.shape[3] * key_states.element_size()
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.chunks = [[] for _ in range(key_states.shape[0])]
        self.is_initialized = True

    def update(self, key_states, value_states, *arguments, **options):
        """Appends [sequences, heads, tokens, head_dim]; returns all keys and all values, decompressed.

        What is new comes back as it came in; it is read compressed from the next call on.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = torch.cat((self.keys, key_states), -2)
        self.values = torch.cat((self.values, value_states), -2)
        whole = self._whole(KEYS, 'keys'), self._whole(VALUES, 'values')
        if self.keys.shape[-2] >= TAIL:
            self._compress_tail()
        return whole

    def get_seq_length(self):
        if not self.is_initialized:
            return 0
        return sum(chunk.tokens for chunk in self.chunks[0]) + self.keys.shape[-2]

    def get_mask_sizes(self, query_length):
        return self.get_seq_length() + query_length, 0

    def get_max_length(self):
        return -1

    def reset(self):
        self.__init__(self.ledger, self.index)

    def crop(self, tokens_to_remove):
        """Removes the last `-tokens_to_remove` tokens."""
        if tokens_to_remove > 0:
            raise ValueError(f'CompressedCache.crop: expected minus the number of tokens to remove, got '
                             f'{tokens_to_remove}')
        if not self.is_initialized:
            return
        length = max(0, self.get_seq_length() + tokens_to_remove)
        for sequence, chunks in enumerate(self.chunks):
            self.chunks[sequence] = _first(chunks, length)
        kept = max(0, length - sum(chunk.tokens for chunk in self.chunks[0]))
        # clone: a view would keep the rest alive.
        self.keys, self.values = self.keys[:, :, :kept].clone(), self.values[:, :, :kept].clone()

    def reorder_cache(self, beam_idx):
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices):
        if self.is_initialized:
            self.keys, self.values = self.keys[indices], self.values[indices]
            order = torch.arange(len(self.chunks))[indices.cpu()].tolist()
            self.chunks = [list(self.chunks[sequence]) for sequence in order]

    def batch_repeat_interleave(self, repeats):
        if self.is_initialized:
            self.batch_select_indices(torch.arange(len(self.chunks)).repeat_interleave(repeats))

    @property
    def batch_size(self):
        return len(self.chunks)

    def alive(self):
        """{kind: tensors}: the parts of the chunks, and the tail."""
        chunks = {id(chunk): chunk for sequence in self.chunks for chunk in sequence}.values()
        alive = {KEYS: [part for chunk in chunks for part in chunk.keys.parts()],
                 VALUES: [part for chunk in chunks for part in chunk.values.parts()]}
        if self.is_initialized:
            alive[KEYS].append(self.keys)
            alive[VALUES].append(self.values)
        return alive

    def _whole(self, kind, field):
        """The decompressed chunks and the tail of all sequences, [sequences, heads, tokens, head_dim]."""
        tail = getattr(self, field)
        if not any(self.chunks):
            return tail
        rows = [torch.cat((*(self.ledger.decompress(kind, getattr(chunk, field))[:, :, :chunk.tokens]
                             for chunk in chunks), row), -2)
                for chunks, row in zip(self.chunks, tail.split(1))]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _compress_tail(self):
        name = f'layer {self.index}'
        for sequence, chunks in enumerate(self.chunks):
            row = slice(sequence, sequence + 1)
            chunks.append(Chunk(self.ledger.compress(KEYS, name, self.keys[row]),
                                self.ledger.compress(VALUES, name, self.values[row]), self.keys.shape[-2]))
        self.keys, self.values = (tail.new_empty(*tail.shape[:2], 0, tail.shape[-1])
                                  for tail in (self.keys, self.values))


def _first(chunks, tokens):
    """The chunks of the first `tokens` tokens. One that is cut keeps its tail in memory, and no new error comes."""
    kept = []
    for chunk in chunks:
        if tokens <= 0:
            break
        kept.append(dataclasses.replace(chunk, tokens=min(chunk.tokens, tokens)))
        tokens -= chunk.tokens
    return kept


class CompressedCache(Cache):
    """Give it to a model's forward or `generate` as its cache. layers: the model's text layers."""

    def __init__(self, ledger, layers):
        super().__init__(layers=[CompressedLayer(ledger, index) for index in range(layers)])

    def alive(self):
        return {kind: [tensor for layer in self.layers for tensor in layer.alive()[kind]]
                for kind in (KEYS, VALUES)}

    def original_bytes(self):
        """{kind: bytes} that the keys and values would take as they came."""
        each = sum(layer.batch_size * layer.get_seq_length() * layer.bytes_a_token for layer in self.layers)
        return {KEYS: each, VALUES: each}
