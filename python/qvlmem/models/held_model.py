# SPDX-License-Identifier: Apache-2.0
"""A model whose weights, vision features and KV cache have been compressed and come back."""

import collections
import contextlib

import torch
from transformers import DynamicCache

WEIGHTS = 'weights'
VISION = 'vision_features'
DEEPSTACK = 'deepstack_features'
HIDDEN = 'hidden_states'
KEYS = 'keys'
VALUES = 'values'


def distinct_weights(model):
    """[(name, tensor)]: every byte that the parameters hold, once.

    A tied parameter, and one that is a view of another, is part of the tensor that covers it.
    Parameters that overlap with none covering the others become one flat tensor.
    """
    by_storage = collections.defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.numel():
            data = parameter.detach()
            by_storage[data.untyped_storage().data_ptr(), data.dtype].append((name, data))
    weights = []
    for members in by_storage.values():
        # By the elements they reach over: those that begin first, and of these the longest, first.
        members = sorted(((*_extent(data), name, data) for name, data in members),
                         key=lambda member: (member[0], -member[1]))
        while members:
            begin, end, name, data = members.pop(0)
            overlapping = []
            while members and members[0][0] < end:
                overlapping.append(members.pop(0))
                end = max(end, overlapping[-1][1])
            # What has an element twice, or leaves one out that others have, is no tensor to write to.
            covers_all = data.numel() == end - begin
            if not covers_all and (overlapping or data.numel() > end - begin):
                name = f'{name} and {len(overlapping)} more'
                data = data.as_strided((end - begin,), (1,), begin)
            weights.append((name, data))
    return weights


def _extent(data):
    begin = data.storage_offset()
    return begin, begin + 1 + sum((n - 1) * stride for n, stride in zip(data.shape, data.stride()))


@torch.no_grad()
def hold_weights(model, ledger, advance=lambda: None):
    """Replaces the weights by what comes back from compressing them, in place."""
    for name, weight in distinct_weights(model):
        weight.copy_(ledger.round_trip(WEIGHTS, name, weight)[1])
        advance()


@contextlib.contextmanager
def held_features(model, ledger, advance=lambda: None):
    """Within it, the language model gets the vision features that came back from compressing them.

    The hidden states that each of its layers puts out are compressed too, for their figures; what
    goes on to the next layer is the original.
    """
    def vision_hook(module, arguments, output):
        output.pooler_output = hold(VISION, 'merged', output.pooler_output)
        output.deepstack_features = [hold(DEEPSTACK, f'tap {index}', feature) for index, feature
                                     in enumerate(output.deepstack_features)]
        return output

    def layer_hook(index):
        def hook(module, arguments, output):
            hold(HIDDEN, f'layer {index}', output[0] if isinstance(output, tuple) else output)
        return hook

    def hold(kind, name, x):
        y = ledger.round_trip(kind, name, x)[1]
        advance()
        return y

    hooks = [model.model.visual.register_forward_hook(vision_hook)]
    for index, layer in enumerate(model.model.language_model.layers):
        hooks.append(layer.register_forward_hook(layer_hook(index)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def hold_cache(cache, ledger, advance=lambda: None):
    """[(keys, values)] of every layer, compressed."""
    held = []
    for index, layer in enumerate(cache.layers):
        keys, _ = ledger.round_trip(KEYS, f'layer {index}', layer.keys)
        advance()
        values, _ = ledger.round_trip(VALUES, f'layer {index}', layer.values)
        advance()
        held.append((keys, values))
    return held


def restored_cache(held):
    """A cache with what comes back from `hold_cache`; as often as wanted."""
    cache = DynamicCache()
    for index, pair in enumerate(held):
        cache.update(*map(torch.ops.qvlmem.decompress, pair), index)
    return cache


def tensors_held(model):
    """How many tensors `hold_weights`, `held_features` and `hold_cache` come by, in all."""
    layers = len(model.model.language_model.layers)
    taps = len(model.model.visual.deepstack_visual_indexes)
    return len(distinct_weights(model)) + 1 + taps + 3 * layers
