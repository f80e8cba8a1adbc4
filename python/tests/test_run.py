# SPDX-License-Identifier: Apache-2.0
"""`python -m qvlmem run`: the small model from end to end, and every way in which it may refuse."""

import json
import math
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from qvlmem.__main__ import main
from qvlmem.commands import CommandError, run

pytest.importorskip('transformers')
pytest.importorskip('torchvision')

from qvlmem.models import generation, held_model, ledger, photograph, small_qwen3_vl  # noqa: E402

PACKAGE = pathlib.Path(run.__file__).parents[2]
TEXT_LAYERS, KEY_HEADS, HEAD_DIM, TAPS = 6, 2, 128, 3


def run_command(library, *arguments):
    environment = os.environ | {'QVLMEM_LIBRARY': library, 'PYTHONPATH': str(PACKAGE)}
    return subprocess.run([sys.executable, '-m', 'qvlmem', 'run', *arguments], env=environment,
                          capture_output=True, text=True, timeout=600)


def measure(*arguments):
    parser = run.argparse.ArgumentParser()
    run.add_arguments(parser)
    return run.measure(parser.parse_args(arguments))


@pytest.fixture(scope='module')
def finished(library_path):
    return run_command(library_path, '--json', '--tokens', '4')


@pytest.fixture(scope='module')
def report(finished):
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture(scope='module')
def subject():
    image = photograph.open_photograph(photograph.default_photograph())
    return generation.Subject(small_qwen3_vl.small_model(), small_qwen3_vl.small_inputs(image))


def test_json_is_all_that_is_printed(finished):
    json.loads(finished.stdout)
    assert finished.stderr == ''


def test_every_tensor_of_every_kind_is_compressed(report):
    counts = {kind: figures['tensors'] for kind, figures in report['kinds'].items()}
    weights = counts.pop('weights')
    assert counts == {'vision_features': 1, 'deepstack_features': TAPS, 'hidden_states': TEXT_LAYERS,
                      'keys': TEXT_LAYERS, 'values': TEXT_LAYERS}
    assert weights == sum(1 for _ in small_qwen3_vl.small_model().parameters())
    assert len(report['tensors']) == weights + sum(counts.values()) == report['total']['tensors']


def test_keys_and_values_have_the_shape_of_grouped_heads(report):
    for entry in report['tensors']:
        if entry['kind'] in ('keys', 'values'):
            assert entry['shape'] == [1, KEY_HEADS, report['prompt_tokens'], HEAD_DIM]
        if entry['kind'] == 'hidden_states':
            assert entry['shape'][:2] == [1, report['prompt_tokens']]


def test_figures_of_a_kind_are_those_of_its_tensors(report):
    for kind, figures in report['kinds'].items():
        members = [entry for entry in report['tensors'] if entry['kind'] == kind]
        before = sum(2 * math.prod(entry['shape']) for entry in members)
        after = sum(entry['compressed_bytes'] for entry in members)
        assert figures['bytes_before'] == before and figures['bytes_after'] == after
        assert figures['ratio'] == pytest.approx(before / after)
        assert sum(figures['codecs'].values()) == figures['tensors'] == len(members)
        assert figures['worst_error'] == max(entry['errors']['tensor'] for entry in members)
        assert figures['compress_gb_per_s'] > 0 and figures['decompress_gb_per_s'] > 0


def test_compression_saves_memory_within_its_bound(report):
    assert report['total']['ratio'] > 1.5
    assert 0 < report['total']['worst_error'] <= 0.01 * ledger.MEASURED
    assert report['total']['bytes_after'] > report['total_without_hidden_states']['bytes_after']


def test_the_held_model_answers_almost_as_the_plain_one(report):
    changed = report['changed']
    assert changed['positions'] == len(report['answers']['plain']['tokens']) == 4
    # Every weight is off by up to 1%, and so the answer changes: but by far less than it varies.
    assert 0 < changed['mean_logit_difference'] <= changed['max_logit_difference']
    assert changed['mean_logit_difference'] < 0.2 * changed['logit_spread']
    assert 0 < changed['mean_kl_nats'] <= changed['max_kl_nats'] < 0.5


@pytest.mark.parametrize('dtype', ['bf16', 'fp32'])
def test_max_error_0_changes_nothing(dtype):
    report = measure('--max-error', '0', '--tokens', '4', '--dtype', dtype)
    assert report['total']['exact'] and report['total']['worst_error'] == 0
    assert report['changed']['max_logit_difference'] == 0
    assert report['changed']['max_kl_nats'] == 0
    assert report['changed']['tokens_that_differ'] == 0
    assert report['answers']['plain'] == report['answers']['held']
    assert report['total']['ratio'] > (1.3 if dtype == 'bf16' else 1)


def test_the_bound_asked_for_holds():
    report = measure('--max-error', '0.02', '--bound', 'row', '--tokens', '1')
    assert max(entry['errors']['row'] for entry in report['tensors']) <= 0.02 * ledger.MEASURED


def test_forced_decoding_repeats_free_decoding(subject):
    free = generation.decode(subject, *generation.prefill(subject), 4)
    forced = generation.decode(subject, *generation.prefill(subject), 4, forced=free.tokens)
    assert forced.tokens == free.tokens and torch.equal(forced.logits, free.logits)
    assert free.logits.shape == (4, small_qwen3_vl.VOCABULARY)


def test_forced_decoding_feeds_what_it_is_told(subject):
    free = generation.decode(subject, *generation.prefill(subject), 2)
    other = [free.tokens[0] ^ 1, free.tokens[1]]
    forced = generation.decode(subject, *generation.prefill(subject), 9, forced=other)
    assert forced.tokens == other
    assert torch.equal(forced.logits[0], free.logits[0])
    assert not torch.equal(forced.logits[1], free.logits[1])


def test_decoding_stops_at_an_end_token(subject):
    free = generation.decode(subject, *generation.prefill(subject), 3)
    ending = generation.Subject(subject.model, subject.inputs, end_tokens={free.tokens[0]})
    assert generation.decode(ending, *generation.prefill(ending), 3).tokens == free.tokens[:1]


def test_the_same_seed_gives_the_same_model():
    first, again, other = (small_qwen3_vl.small_model(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_an_answer_that_is_shorter_differs_in_what_it_lacks():
    assert run.tokens_that_differ([1, 2, 3], [1, 2, 3]) == 0
    assert run.tokens_that_differ([1, 2, 3], [1, 5, 3]) == 1
    assert run.tokens_that_differ([1, 2, 3], [1]) == 2


@pytest.mark.parametrize('width', [80, 110])
def test_the_tables_show_every_figure(report, width, tmp_path):
    path = tmp_path / 'tables.txt'
    with path.open('w') as file:
        run.print_report(report, Console(file=file, width=width))
    text = path.read_text()
    assert '\N{HORIZONTAL ELLIPSIS}' not in text  # rich's mark of a figure that had no room
    for kind, figures in report['kinds'].items():
        assert kind.split('_')[0] in text and f"{figures['ratio']:.2f}" in text
    assert f"{report['changed']['mean_kl_nats']:.3g} nats" in text


@pytest.mark.parametrize('arguments', [
    ['--max-error', '-0.1'], ['--max-error', 'nan'], ['--max-error', '1'], ['--max-error', 'much'],
    ['--tokens', '0'], ['--tokens', '1.5'], ['--seed', '-1'], ['--bound', 'matrix'],
    ['--dtype', 'int8'], ['--prompt', 'What is this?'], ['--unknown'], ['file.png']])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(['run', *arguments])
    assert exit.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == '' and 'error: ' in printed.err and arguments[0] in printed.err


def damaged_photograph(kind, folder):
    path = folder / 'photograph.png'
    good = photograph.default_photograph().read_bytes()
    if kind == 'text':
        path.write_text('This is not a photograph.\n')
    elif kind == 'empty':
        path.touch()
    elif kind == 'truncated':
        path.write_bytes(good[:len(good) // 2])
    elif kind == 'header only':
        path.write_bytes(good[:40])
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'thin line':
        from PIL import Image
        Image.new('RGB', (1, 1000)).save(path)
    return path


@pytest.mark.parametrize('kind', ['missing', 'text', 'empty', 'truncated', 'header only', 'folder',
                                  'thin line'])
def test_an_image_that_cannot_be_used_is_named(kind, tmp_path, capsys):
    path = damaged_photograph(kind, tmp_path)
    assert main(['run', '--image', str(path), '--json']) == 1
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.startswith('qvlmem run: error: ') and str(path) in printed.err
    assert printed.err.count('\n') == 1


def test_an_error_leaves_no_traceback(library_path, tmp_path):
    path = damaged_photograph('text', tmp_path)
    failed = run_command(library_path, '--image', str(path))
    assert failed.returncode == 1 and failed.stdout == ''
    assert failed.stderr == f'qvlmem run: error: {path} is not an image that Pillow can read\n'


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'CMYK', '1'])
def test_images_of_every_mode_become_rgb(mode, tmp_path):
    from PIL import Image
    path = tmp_path / 'image.tiff'
    Image.new(mode, (64, 48)).save(path)
    image = photograph.open_photograph(path)
    assert image.mode == 'RGB' and image.size == (64, 48)


class Misstated:
    """Stands in for a CompressedTensor whose nbytes() is not what its parts hold."""

    def __init__(self, x):
        self.x = x

    def nbytes(self):
        return self.x.numel()

    def parts(self):
        return [self.x, self.x[:1]]


def test_bytes_are_checked_against_the_storages_of_the_parts():
    assert ledger.held_bytes('x', Misstated(torch.zeros(8, dtype=torch.uint8))) == 8
    with pytest.raises(CommandError, match='nbytes'):
        ledger.held_bytes('x', Misstated(torch.zeros(8)))


@pytest.mark.parametrize('damage', [lambda y: y * 1.5, lambda y: y * math.nan, lambda y: y.double(),
                                    lambda y: y.view(-1)])
@pytest.mark.parametrize('max_error', [0.0, 0.01])
def test_a_tensor_over_its_bound_is_an_error(damage, max_error, monkeypatch):
    decompress = torch.ops.qvlmem.decompress
    monkeypatch.setattr(torch.ops.qvlmem, 'decompress', lambda c: damage(decompress(c)))
    with pytest.raises(CommandError, match='came back'):
        ledger.Ledger(max_error, 'tensor').round_trip('weights', 'x', torch.ones(64, 64))


class Zeroing(ledger.Ledger):
    """Gives zeros back for one kind of tensor, and everything else as it is."""

    def __init__(self, kind):
        super().__init__(0, 'tensor')
        self.zeroed = kind

    def round_trip(self, kind, name, x):
        return None, torch.zeros_like(x) if kind == self.zeroed else x


@pytest.mark.parametrize('kind, used', [(held_model.VISION, True), (held_model.DEEPSTACK, True),
                                        (held_model.HIDDEN, False), ('no kind', False)])
def test_the_model_uses_the_features_that_came_back(subject, kind, used):
    plain, _ = generation.prefill(subject)
    with held_model.held_features(subject.model, Zeroing(kind)):
        held, _ = generation.prefill(subject)
    assert torch.equal(plain, held) != used


def test_the_cache_has_what_came_back(subject):
    book = ledger.Ledger(0.05, 'tensor')
    logits, cache = generation.prefill(subject)
    held = held_model.hold_cache(cache, book)
    restored, again = held_model.restored_cache(held), held_model.restored_cache(held)
    assert len(book.entries) == 2 * len(cache.layers) == 2 * TEXT_LAYERS
    for plain, first, second in zip(cache.layers, restored.layers, again.layers):
        for name in ('keys', 'values'):
            x, y, z = (getattr(layer, name) for layer in (plain, first, second))
            assert torch.equal(y, z) and not torch.equal(x, y)
            assert float((x - y).norm()) <= 0.05 * float(x.norm())
    plain_answer = generation.decode(subject, logits, cache, 3)
    held_answer = generation.decode(subject, logits, restored, 3, forced=plain_answer.tokens)
    assert torch.equal(plain_answer.logits[0], held_answer.logits[0])
    assert not torch.equal(plain_answer.logits[1:], held_answer.logits[1:])


def test_hooks_are_gone_after_an_error(subject, monkeypatch):
    book = ledger.Ledger(0.01, 'tensor')
    with pytest.raises(CommandError), held_model.held_features(subject.model, book):
        raise CommandError('stop')
    generation.prefill(subject)
    assert book.entries == []
