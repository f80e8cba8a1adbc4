# SPDX-License-Identifier: Apache-2.0
"""A model's weights, held compressed: a module has its own back while its forward runs, and no longer."""

import collections
import functools

import torch
from torch import nn
from torch.nn import functional

from qvlmem.models.ledger import WEIGHTS

BLOCK_BYTES = 64 << 20  # the most that comes back at a time where a module can work by rows


class HeldWeight:
    """One parameter, compressed in blocks of rows."""

    def __init__(self, ledger, name, value):
        self.ledger = ledger
        self.shape, self.dtype, self.nbytes = value.shape, value.dtype, value.nbytes
        rows = value.shape[0] if value.ndim > 1 else 1
        self.block_rows = max(1, rows * BLOCK_BYTES // max(BLOCK_BYTES, value.nbytes))
        pieces = value.split(self.block_rows) if value.ndim > 1 else (value,)
        self.blocks = [ledger.compress(WEIGHTS, name if len(pieces) == 1 else f'{name}, block {index}', piece)
                       for index, piece in enumerate(pieces)]

    def restore(self):
        pieces = [self.restore_block(index) for index in range(len(self.blocks))]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def restore_block(self, index):
        return self.ledger.decompress(WEIGHTS, self.blocks[index])


class HeldWeights:
    """Takes the weights of `model` away and holds them compressed.

    value_of: what gives the value of a parameter from its name and itself; the default is the parameter's own
    value. A model on the meta device whose values come from a file or a generator is so never whole in memory.
    Parameters that are one tensor (tied ones) are held once. The model is then for one thread at a time, and has
    no state_dict. RuntimeError where its weights are held already. `restored_bytes` is what is decompressed at the
    moment, `peak_restored_bytes` the most that ever was.
    """

    def __init__(self, model, ledger, value_of=lambda name, parameter: parameter.detach(),
                 advance=lambda: None):
        self.held = []
        by_key = {}
        self.restored_bytes = self.peak_restored_bytes = 0
        uses = collections.Counter(
            _key(parameter) for module in model.modules() for parameter in module._parameters.values()
            if parameter is not None)
        for prefix, module in model.named_modules():
            names = [name for name, parameter in module._parameters.items() if parameter is not None]
            for name in names:
                parameter = module._parameters[name]
                key = _key(parameter)
                if key not in by_key:
                    full_name = f'{prefix}.{name}' if prefix else name
                    by_key[key] = HeldWeight(ledger, full_name, value_of(full_name, parameter))
                    self.held.append(by_key[key])
                    advance()
                uses[key] -= 1
            if names:
                keys = {name: _key(module._parameters[name]) for name in names}
                del parameter
                self._take(module, {name: by_key[key] for name, key in keys.items()})
                # What has gone for good may have its address, or its id, taken by another one.
                for key in keys.values():
                    if not uses[key]:
                        by_key.pop(key, None)

    def alive(self):
        return {WEIGHTS: [part for weight in self.held for block in weight.blocks for part in block.parts()]}

    def original_bytes(self):
        """{kind: bytes} that the weights would take as they came."""
        return {WEIGHTS: sum(weight.nbytes for weight in self.held)}

    def _take(self, module, weights):
        if isinstance(module.forward, functools.partial) and isinstance(
                getattr(module.forward.func, '__self__', None), HeldWeights):
            raise RuntimeError('HeldWeights: the weights of this model are held already')
        placeholders = {}
        for name, weight in weights.items():
            # Of one element, with the shape that the model may ask for; NaN, so that a use of it shows.
            nothing = torch.full((), float('nan'), dtype=weight.dtype).expand(weight.shape)
            placeholders[name] = module._parameters[name] = nn.Parameter(nothing, requires_grad=False)
        module.register_state_dict_pre_hook(_refuse_state_dict)
        plain = module.forward
        if _by_blocks(module, weights):
            module.forward = functools.partial(self._forward_by_blocks, module, weights)
        else:
            module.forward = functools.partial(self._forward_whole, module, weights, placeholders, plain)

    def _forward_whole(self, module, weights, placeholders, plain, *arguments, **options):
        count = sum(weight.nbytes for weight in weights.values())
        self._count(count)
        try:
            for name, weight in weights.items():
                module._parameters[name] = nn.Parameter(weight.restore(), requires_grad=False)
            return plain(*arguments, **options)
        finally:
            module._parameters.update(placeholders)
            self._count(-count)

    def _forward_by_blocks(self, module, weights, x):
        weight = weights['weight']
        rows = weight.block_rows
        count = weight.nbytes // weight.shape[0] * rows
        self._count(count)
        try:
            if isinstance(module, nn.Linear):
                return torch.cat([functional.linear(x, weight.restore_block(index))
                                  for index in range(len(weight.blocks))], -1)
            if x.numel() and x.min() < 0:
                raise IndexError(f'expected ids from 0 to {module.num_embeddings - 1}, got {int(x.min())}')
            output = torch.empty(*x.shape, module.embedding_dim, dtype=module.weight.dtype)
            blocks = x // rows
            for index in blocks.unique().tolist():
                here = blocks == index
                output[here] = functional.embedding(x[here] - index * rows, weight.restore_block(index))
            return output
        finally:
            self._count(-count)

    def _count(self, change):
        self.restored_bytes += change
        self.peak_restored_bytes = max(self.peak_restored_bytes, self.restored_bytes)


def _refuse_state_dict(module, prefix, keep_vars):
    raise RuntimeError('HeldWeights: the weights of this model are held compressed and are not in its state_dict; '
                       'save them before')


def _key(parameter):
    if parameter.is_meta:
        return id(parameter)
    return (parameter.untyped_storage().data_ptr(), parameter.storage_offset(), parameter.shape,
            parameter.stride(), parameter.dtype)


def _by_blocks(module, weights):
    return (type(module) in (nn.Linear, nn.Embedding) and set(weights) == {'weight'}
            and len(weights['weight'].blocks) > 1)
