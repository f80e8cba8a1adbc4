# SPDX-License-Identifier: Apache-2.0
"""The compressed KV cache against transformers' own: lengths, values, what is compressed when, beams."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip('transformers')

from qvlmem.models import generation, ledger, photograph, shapes, skeleton  # noqa: E402
from qvlmem.models.held_cache import TAIL, CompressedCache  # noqa: E402

LAYERS, HEADS, WIDTH = 2, 3, 24


def states(sequences, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(sequences, HEADS, tokens, WIDTH, generator=generator).bfloat16() for _ in range(2)]


def both(max_error=0.0):
    book = ledger.Ledger(max_error)
    return book, CompressedCache(book, LAYERS), transformers.DynamicCache()


def append(caches, sequences, tokens, seed):
    """Appends to all layers of both; returns pairs of what they gave back."""
    pairs = []
    for layer in range(LAYERS):
        keys, values = states(sequences, tokens, seed * LAYERS + layer)
        ours, theirs = (cache.update(keys.clone(), values.clone(), layer) for cache in caches)
        pairs += zip(ours, theirs)
    return pairs


STEPS = st.lists(st.one_of(
    st.tuples(st.just('append'), st.integers(1, 2 * TAIL)),
    st.tuples(st.just('crop'), st.integers(0, 3 * TAIL)),
    st.tuples(st.just('reorder'), st.integers(0, 1000)),
    st.tuples(st.just('select'), st.integers(0, 1000)),
    st.tuples(st.just('repeat'), st.integers(1, 2))), min_size=1, max_size=8)


@given(STEPS, st.integers(1, 3))
@settings(deadline=None)
def test_exact_it_does_what_a_dynamic_cache_does(steps, sequences):
    _, ours, theirs = both()
    append((ours, theirs), sequences, 3, seed=99)
    for seed, (step, number) in enumerate(steps):
        generator = torch.Generator().manual_seed(number)
        if step == 'append':
            for x, y in append((ours, theirs), sequences, number, seed):
                assert torch.equal(x, y)
        elif step == 'crop':
            number = min(number, theirs.get_seq_length() - 1)
            ours.crop(-number)
            theirs.crop(-number)
        elif step == 'reorder':
            order = torch.randint(sequences, (sequences,), generator=generator)
            ours.reorder_cache(order)
            theirs.reorder_cache(order)
        elif step == 'select':
            order = torch.randperm(sequences, generator=generator)[:max(1, number % (sequences + 1))]
            ours.batch_select_indices(order)
            theirs.batch_select_indices(order)
            sequences = len(order)
        elif sequences * number <= 6:
            ours.batch_repeat_interleave(number)
            theirs.batch_repeat_interleave(number)
            sequences *= number
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(5, 0) == theirs.get_mask_sizes(5, 0)
        expected = sum(layer.keys.nbytes for layer in theirs.layers)
        assert ours.original_bytes() == {'keys': expected, 'values': expected}
    for x, y in append((ours, theirs), sequences, 1, seed=100):
        assert torch.equal(x, y)


def test_only_what_is_new_is_compressed_and_only_once():
    book, ours, theirs = both(0.02)
    append((ours, theirs), 1, 100, 0)
    assert len(book.entries) == 2 * LAYERS and ours.layers[0].keys.shape[-2] == 0
    for step in range(TAIL - 1):
        append((ours, theirs), 1, 1, 1 + step)
    assert len(book.entries) == 2 * LAYERS
    append((ours, theirs), 1, 1, TAIL)
    assert len(book.entries) == 4 * LAYERS
    assert {entry.shape for entry in book.entries} == {(1, HEADS, 100, WIDTH), (1, HEADS, TAIL, WIDTH)}


def test_what_comes_back_is_within_the_bound_and_does_not_drift():
    book, ours, theirs = both(0.02)
    append((ours, theirs), 2, 70, 0)
    first = append((ours, theirs), 2, 1, 1)
    for x, y in first:
        past = slice(0, 70)
        assert not torch.equal(x[:, :, past], y[:, :, past]) and torch.equal(x[:, :, 70:], y[:, :, 70:])
        errors = (x.double() - y.double()).norm(dim=-1) / y.double().norm(dim=-1)
        assert errors.max() <= 0.02 * (1 + 1e-6)
    later = append((ours, theirs), 2, TAIL, 2)
    for (x, _), (again, _) in zip(first, later):
        assert torch.equal(x[:, :, :70], again[:, :, :70])


def test_memory_is_saved_and_beams_share_their_past():
    _, ours, theirs = both(0.02)
    append((ours, theirs), 1, 512, 0)
    alive = {kind: ledger.storage_bytes(tensors) for kind, tensors in ours.alive().items()}
    assert sum(alive.values()) < sum(ours.original_bytes().values()) / 1.6
    ours.batch_repeat_interleave(4)
    assert {kind: ledger.storage_bytes(tensors) for kind, tensors in ours.alive().items()} == alive
    ours.reset()
    assert ours.get_seq_length() == 0
    assert all(ledger.storage_bytes(tensors) == 0 for tensors in ours.alive().values())


def test_cropping_the_tail_frees_it():
    _, ours, theirs = both()
    append((ours, theirs), 1, TAIL - 1, 0)
    ours.crop(-(TAIL - 2))
    tail = ours.layers[0].keys
    assert tail.shape[-2] == 1 and tail.untyped_storage().nbytes() == tail.nbytes


def test_a_positive_crop_is_refused():
    _, ours, _ = both()
    with pytest.raises(ValueError, match='CompressedCache.crop: expected minus'):
        ours.crop(3)


@pytest.fixture(scope='module')
def small():
    config = shapes.shape_config('small')
    model = skeleton.fill(skeleton.new_skeleton(config, torch.bfloat16),
                          lambda name, parameter: shapes.seeded_weight(name, parameter.shape, torch.bfloat16))
    image = photograph.open_photograph(photograph.default_photograph()).resize((96, 64))
    return model, shapes.seeded_inputs(config, image)


def new_cache(small, max_error=0.0):
    return CompressedCache(ledger.Ledger(max_error), len(small[0].model.language_model.layers))


def test_a_model_decodes_the_same_with_it(small):
    model, inputs = small
    plain = generation.answer(model, inputs, transformers.DynamicCache(), 40)
    held = generation.answer(model, inputs, new_cache(small), 40)
    assert held.tokens == plain.tokens and torch.equal(held.logits, plain.logits)


@pytest.mark.parametrize('options', [{}, {'num_beams': 3}, {'num_return_sequences': 2, 'do_sample': True}])
def test_generate_takes_it(small, options):
    model, inputs = small
    parameters = inspect.signature(type(model).forward).parameters
    name = 'cache' if 'cache' in parameters else 'past_key_values'

    def generated(cache):
        torch.manual_seed(0)
        return model.generate(**inputs, **{name: cache}, max_new_tokens=TAIL + 4, pad_token_id=0,
                              **{'do_sample': False, **options})

    assert torch.equal(generated(new_cache(small)), generated(transformers.DynamicCache()))
