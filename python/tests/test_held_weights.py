# SPDX-License-Identifier: Apache-2.0
"""Which tensors a model's weights are: tied ones and views counted once, written back in place."""

import pytest
import torch
from torch import nn

pytest.importorskip('transformers')

from qvlmem.models import held_model, ledger, small_qwen3_vl  # noqa: E402


def storage_bytes(model):
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
                for p in model.parameters()}
    return sum(storages.values())


def weight_bytes(model):
    return sum(weight.nbytes for _, weight in held_model.distinct_weights(model))


@pytest.mark.parametrize('tied', [True, False])
def test_a_tied_output_layer_is_counted_once(tied):
    model = small_qwen3_vl.small_model(tied=tied)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    assert weight_bytes(model) == storage_bytes(model)
    names = [name for name, _ in held_model.distinct_weights(model)]
    assert ('lm_head.weight' in names) == (not tied)
    assert 'model.language_model.embed_tokens.weight' in names


class Views(nn.Module):
    """Parameters over one storage of 10 x 6 elements."""

    def __init__(self, *views):
        super().__init__()
        torch.manual_seed(0)
        self.base = torch.randn(10, 6)
        for index, view in enumerate(views):
            self.register_parameter(f'p{index}', nn.Parameter(view(self.base)))


VIEWS = {
    'whole and its rows': ([lambda x: x, lambda x: x[2:4], lambda x: x[7]], [(10, 6)]),
    'rows first': ([lambda x: x[2:4], lambda x: x], [(10, 6)]),
    'a beginning first': ([lambda x: x[:2], lambda x: x], [(10, 6)]),
    'twice the same': ([lambda x: x, lambda x: x.view(60)], [(10, 6)]),
    'transposed': ([lambda x: x.t()], [(6, 10)]),
    'apart': ([lambda x: x[:5], lambda x: x[5:]], [(5, 6), (5, 6)]),
    'apart with a gap': ([lambda x: x[:2], lambda x: x[8:]], [(2, 6), (2, 6)]),
    'overlapping': ([lambda x: x[:6], lambda x: x[4:]], [(60,)]),
    'a chain': ([lambda x: x[:4], lambda x: x[3:7], lambda x: x[6:]], [(60,)]),
    'columns': ([lambda x: x[:, :3], lambda x: x[:, 3:]], [(60,)]),
    'one column': ([lambda x: x[:, 2]], [(10,)]),
    'expanded': ([lambda x: x[0, :1].expand(7)], [(1,)]),
    'scalar': ([lambda x: x[3, 3]], [()]),
    'empty': ([lambda x: x[:0], lambda x: x], [(10, 6)]),
}


@pytest.mark.parametrize('name', VIEWS)
def test_views_are_covered_once(name):
    views, shapes = VIEWS[name]
    model = Views(*views)
    weights = held_model.distinct_weights(model)
    assert sorted(tuple(weight.shape) for _, weight in weights) == sorted(shapes)
    # Every element that a parameter has is in exactly one of the weights.
    count = torch.zeros(10, 6)
    for _, weight in weights:
        count.as_strided(weight.shape, weight.stride(), weight.storage_offset()).add_(1)
    for view in views:
        assert bool((view(count) == 1).all())
    assert int(count.max()) == 1


@pytest.mark.parametrize('name', VIEWS)
def test_views_see_what_is_written_back(name):
    model = Views(*VIEWS[name][0])
    before = [parameter.detach().clone() for parameter in model.parameters()]
    addresses = [parameter.data_ptr() for parameter in model.parameters()]
    held_model.hold_weights(model, ledger.Ledger(0.05, 'tensor'))
    after = list(model.parameters())
    assert [parameter.data_ptr() for parameter in after] == addresses
    for old, new in zip(before, after):
        assert float((old - new).norm()) <= 0.05 * float(model.base.norm()) + 1e-6
        assert new.requires_grad
    if name == 'whole and its rows':
        assert torch.equal(after[1], after[0][2:4]) and not torch.equal(after[0], before[0])
