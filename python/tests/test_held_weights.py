# SPDX-License-Identifier: Apache-2.0
"""Weights held compressed: each once, back only while its module runs, in blocks where it is large."""

import copy
import weakref

import pytest
import torch
from torch import nn

pytest.importorskip('transformers')

from qvlmem.models import held_weights, ledger, shapes, skeleton  # noqa: E402
from qvlmem.models.held_weights import HeldWeights  # noqa: E402


class Block(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.embedding = nn.Embedding(300, 64)
        self.linear = nn.Linear(64, 64)
        self.scale = nn.Parameter(torch.rand(64))
        self.head = nn.Linear(64, 300, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.linear(self.embedding(ids)) * self.scale)


def new_block(tied=True):
    torch.manual_seed(0)
    return Block(tied).eval().requires_grad_(False)


IDS = torch.tensor([[0, 5, 299, 5], [17, 100, 200, 298]])


@pytest.mark.parametrize('tied', [True, False])
def test_a_tied_weight_is_held_once(tied):
    block, book = new_block(tied), ledger.Ledger(0)
    weights = HeldWeights(block, book)
    names = [entry.name for entry in book.entries]
    assert sorted(names) == sorted(['scale', 'embedding.weight', 'linear.weight', 'linear.bias']
                                   + ([] if tied else ['head.weight']))
    assert weights.original_bytes() == {'weights': sum(entry.original_bytes for entry in book.entries)}
    held = sum(entry.compressed_bytes for entry in book.entries)
    assert ledger.storage_bytes(weights.alive()['weights']) == held


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('block_bytes', [1 << 20, 64 * 4 * 7])
def test_bit_exact_weights_give_the_same_output(tied, block_bytes, monkeypatch):
    monkeypatch.setattr(held_weights, 'BLOCK_BYTES', block_bytes)
    block = new_block(tied)
    expected = block(IDS)
    weights = HeldWeights(block, ledger.Ledger(0))
    assert any(len(weight.blocks) > 1 for weight in weights.held) == (block_bytes < 1 << 20)
    # The product of a block of rows is summed in an order of its own.
    tolerance = {'rtol': 0, 'atol': 0} if block_bytes == 1 << 20 else {}
    for _ in range(2):
        torch.testing.assert_close(block(IDS), expected, **tolerance)


def test_lossy_weights_are_those_that_came_back():
    block, book = new_block(), ledger.Ledger(0.05, 'row')
    twin = copy.deepcopy(block)
    with torch.no_grad():
        for parameter in twin.parameters():
            compressed = torch.ops.qvlmem.compress(parameter, max_error=0.05, bound='row')
            parameter.copy_(torch.ops.qvlmem.decompress(compressed))
    plain = block(IDS)
    HeldWeights(block, book)
    assert torch.equal(block(IDS), twin(IDS)) and not torch.equal(plain, twin(IDS))


@pytest.mark.parametrize('block_bytes', [1 << 20, 64 * 4 * 7])
def test_no_more_than_one_module_is_decompressed_at_a_time(block_bytes, monkeypatch):
    monkeypatch.setattr(held_weights, 'BLOCK_BYTES', block_bytes)
    block = new_block()
    own = block.scale.nbytes  # of the outermost module, whose forward all others run in
    largest = max(sum(p.nbytes for p in module.parameters()) for module in (block.embedding, block.linear))
    weights = HeldWeights(block, ledger.Ledger(0))
    block(IDS)
    assert weights.restored_bytes == 0
    if block_bytes == 1 << 20:
        assert weights.peak_restored_bytes == own + largest
    else:
        assert own < weights.peak_restored_bytes < own + largest
    for module in block.modules():
        for parameter in module._parameters.values():
            assert parameter is None or parameter.untyped_storage().nbytes() == parameter.element_size()


def test_a_weight_that_is_used_outside_its_module_shows():
    block = new_block()
    shape, dtype = block.linear.weight.shape, block.linear.weight.dtype
    HeldWeights(block, ledger.Ledger(0))
    assert block.linear.weight.shape == shape and block.linear.weight.dtype == dtype
    assert block.linear.weight.isnan().all()


def test_a_held_model_has_no_state_dict():
    block = new_block()
    HeldWeights(block, ledger.Ledger(0))
    with pytest.raises(RuntimeError, match='are held compressed'):
        block.state_dict()


def test_weights_are_not_held_twice():
    block, book = new_block(), ledger.Ledger(0)
    HeldWeights(block, book)
    with pytest.raises(RuntimeError, match='held already'):
        HeldWeights(block, ledger.Ledger(0))


def test_each_original_goes_as_its_module_is_held():
    block, alive = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(6))), []
    originals = [weakref.ref(linear.weight) for linear in block]
    HeldWeights(block, ledger.Ledger(0), advance=lambda: alive.append(sum(ref() is not None for ref in originals)))
    assert alive == [6, 5, 4, 3, 2, 1]


def test_negative_ids_are_refused_by_blocks_too(monkeypatch):
    monkeypatch.setattr(held_weights, 'BLOCK_BYTES', 64 * 4 * 7)
    block = new_block()
    HeldWeights(block, ledger.Ledger(0))
    with pytest.raises(IndexError, match='expected ids from 0 to 299, got -1'):
        block(torch.tensor([-1]))


def test_weights_go_again_after_an_error():
    block = new_block()
    weights = HeldWeights(block, ledger.Ledger(0))
    with pytest.raises((IndexError, RuntimeError)):
        block(torch.tensor([300]))
    assert weights.restored_bytes == 0 and block.embedding.weight.isnan().all()
    assert torch.isfinite(block(IDS)).all()


def test_values_may_come_from_elsewhere():
    config = shapes.shape_config('small')
    calls = []

    def value_of(name, parameter):
        calls.append(name)
        assert parameter.is_meta
        return shapes.seeded_weight(name, parameter.shape, torch.bfloat16)

    model = skeleton.new_skeleton(config, torch.bfloat16)
    expected = dict(skeleton.fill(skeleton.new_skeleton(config, torch.bfloat16), value_of).named_parameters())
    filled, calls = calls, []
    advanced = []
    weights = HeldWeights(model, ledger.Ledger(0), value_of, lambda: advanced.append(1))
    assert calls == filled and len(calls) == len(set(calls)) == len(expected) == len(advanced)
    assert 'lm_head.weight' not in calls and 'model.language_model.embed_tokens.weight' in calls
    assert weights.original_bytes()['weights'] == sum(value.nbytes for value in expected.values())
    # A parameter of a module that is in the model once has what value_of gave.
    for weight, name in zip(weights.held, calls):
        assert torch.equal(weight.restore(), expected[name]), name


@pytest.mark.parametrize('tied', [True, False])
def test_a_skeleton_has_no_weights_and_a_filled_one_all(tied):
    model = skeleton.new_skeleton(shapes.shape_config('small', tied), torch.bfloat16)
    assert all(parameter.is_meta and parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    skeleton.fill(model, lambda name, parameter: shapes.seeded_weight(name, parameter.shape, torch.bfloat16))
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied


def test_the_same_seed_gives_the_same_weights():
    first, again, other = (shapes.seeded_weight('layer.weight', (40, 30), torch.bfloat16, seed)
                           for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first, shapes.seeded_weight('other.weight', (40, 30), torch.bfloat16, 3))
