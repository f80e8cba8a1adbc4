# SPDX-License-Identifier: Apache-2.0
"""`python -m qvlmem run` from end to end on the digit reader and on seeded weights, and how it refuses."""

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

from qvlmem.models import digit_pages, generation, ledger, photograph, sides, subjects  # noqa: E402
from qvlmem.models import tensor_error  # noqa: E402
from qvlmem.models.held_cache import TAIL  # noqa: E402
from qvlmem.models.held_features import HeldFeatures  # noqa: E402
from qvlmem.models.request import Request  # noqa: E402

PACKAGE = pathlib.Path(run.__file__).parents[2]
TEXT_LAYERS, KEY_HEADS, HEAD_DIM, TAPS = 4, 2, 32, 3
PAGES = 24  # by default
KINDS = ['weights', 'vision_features', 'deepstack_features', 'keys', 'values']
BOUND = 1 + 1e-6  # rounding in how an error is measured


def run_command(library, *arguments):
    environment = os.environ | {'QVLMEM_LIBRARY': library, 'PYTHONPATH': str(PACKAGE)}
    return subprocess.run([sys.executable, '-m', 'qvlmem', 'run', *arguments], env=environment,
                          capture_output=True, text=True, timeout=600)


def measure(*arguments):
    """The report of a run in this process."""
    parser = run.argparse.ArgumentParser()
    run.add_arguments(parser)
    return run.measure(parser.parse_args(arguments))


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(sides, 'in_fresh_process', lambda function, *arguments: function(*arguments))


@pytest.fixture(scope='module')
def finished(library_path):
    return run_command(library_path, '--json')


@pytest.fixture(scope='module')
def report(finished):
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_json_is_all_that_is_printed(finished):
    json.loads(finished.stdout)
    assert finished.stderr == ''


def test_every_tensor_of_every_kind_is_compressed(report):
    counts = {kind: figures['tensors'] for kind, figures in report['kinds'].items()}
    assert list(counts) == KINDS
    assert counts['vision_features'] == PAGES and counts['deepstack_features'] == PAGES * TAPS
    chunks = 0
    for question in report['questions']:
        prompt, fed = question['prompt_tokens'], len(question['held']['tokens']) - 1
        # A prompt of 32 tokens or more is compressed as one, and then each run of 32.
        chunks += 1 + fed // TAIL if prompt >= TAIL else (prompt + fed) // TAIL
    assert counts['keys'] == counts['values'] == TEXT_LAYERS * chunks
    assert sum(counts.values()) == report['total']['tensors'] == len(report['tensors'])
    assert report['statistics']['tensors_compressed'] <= report['statistics']['compression_attempts']
    assert report['statistics']['compression_attempts'] == len(report['tensors'])


def test_keys_and_values_have_the_shape_of_grouped_heads(report):
    lengths = {question['prompt_tokens'] for question in report['questions']} | {TAIL}
    for entry in report['tensors']:
        if entry['kind'] in ('keys', 'values'):
            assert entry['shape'][:2] + entry['shape'][3:] == [1, KEY_HEADS, HEAD_DIM]
            assert entry['shape'][2] in lengths


def test_figures_of_a_kind_are_those_of_its_tensors(report):
    for kind, figures in report['kinds'].items():
        members = [entry for entry in report['tensors'] if entry['kind'] == kind]
        before = sum(2 * math.prod(entry['shape']) for entry in members)
        after = sum(entry['compressed_bytes'] for entry in members)
        assert figures['bytes_before'] == before and figures['bytes_after'] == after
        assert figures['ratio'] == pytest.approx(before / after)
        assert sum(figures['codecs'].values()) == figures['tensors'] == len(members)
        assert figures['worst_row_error'] == max(entry['worst_row_error'] for entry in members)
        assert figures['compress_gb_per_s'] > 0 and figures['decompress_gb_per_s'] > 0


def test_compression_saves_memory_within_its_bound(report):
    assert 0 < report['total']['worst_row_error'] <= 0.01 * BOUND
    held = report['memory']['held']
    before, after = held['uncompressed_at_most'], held['alive_at_most']
    assert list(before) == list(after) == KINDS
    assert sum(before.values()) >= 2 * sum(after.values())


@pytest.fixture(scope='module')
def exact_report(library_path):
    return json.loads(run_command(library_path, '--json', '--pages', '2', '--max-error', '0').stdout)


@pytest.mark.parametrize('name', ['report', 'exact_report'])
def test_what_is_alive_is_what_the_allocator_gave_out(name, request):
    report = request.getfixturevalue(name)
    plain, held = report['memory']['plain'], report['memory']['held']
    assert plain['alive_at_most']['weights'] == held['uncompressed_at_most']['weights']
    for side in (plain, held):
        alive, allocated = side['alive_at_most']['weights'], side['weights_allocator']
        # What holds a tensor, and the start of its storage at a multiple of 64, take some hundred bytes each.
        assert alive <= allocated <= alive + 2000 * 2 * report['kinds']['weights']['tensors'] + (256 << 10)
    assert held['peak_restored_weights'] < 0.1 * plain['alive_at_most']['weights']


def test_the_reader_reads_and_compression_changes_little(report):
    assert report['accuracy']['plain'] >= 0.98
    assert abs(report['accuracy']['held'] - report['accuracy']['plain']) <= 0.005
    assert report['changed']['positions'] == sum(len(question['plain']['tokens'])
                                                 for question in report['questions'])
    assert 0 < report['changed']['mean_kl_nats'] < 0.01


def test_bit_exact_is_smaller_too(exact_report):
    held = exact_report['memory']['held']
    assert sum(held['uncompressed_at_most'].values()) >= 1.3 * sum(held['alive_at_most'].values())
    assert exact_report['changed']['tokens_that_differ'] == 0


@pytest.mark.parametrize('dtype', ['bf16', 'fp32'])
def test_max_error_0_changes_nothing(dtype, in_this_process):
    report = measure('--max-error', '0', '--pages', '2', '--dtype', dtype)
    assert report['total']['worst_row_error'] == report['total']['worst_tensor_error'] == 0
    assert report['changed']['max_logit_difference'] == report['changed']['max_kl_nats'] == 0
    assert report['changed']['tokens_that_differ'] == 0
    assert all(question['plain'] == question['held'] for question in report['questions'])
    assert report['total']['ratio'] > (1.3 if dtype == 'bf16' else 1)


@pytest.mark.parametrize('bound', tensor_error.BOUNDS)
def test_the_bound_asked_for_holds(bound, in_this_process):
    report = measure('--max-error', '0.02', '--bound', bound, '--tokens', '1', '--pages', '1')
    key = {'tensor': 'tensor_error', 'row': 'worst_row_error', 'element': 'max_element_error'}[bound]
    assert 0 < max(entry[key] for entry in report['tensors']) <= 0.02 * BOUND


def test_the_errors_of_the_ledger_are_those_of_what_comes_back():
    torch.manual_seed(0)
    book, x = ledger.Ledger(0.02), torch.randn(40, 70).bfloat16()
    y = book.decompress('weights', book.compress('weights', 'x', x))
    errors, entry = tensor_error.relative_errors(x, y), book.entries[0]
    assert entry.tensor_error == pytest.approx(errors['tensor'], rel=1e-6)
    assert entry.worst_row_error == pytest.approx(errors['row'], rel=1e-6)
    assert entry.max_element_error == pytest.approx(errors['element'], rel=1e-6)


def test_seeded_weights_of_a_shape_run(in_this_process):
    report = measure('--shape', 'small', '--tokens', '3')
    assert report['model']['seeded'] and report['accuracy'] == {'plain': None, 'held': None}
    question, = report['questions']
    assert question['prompt_tokens'] == 254 and len(question['plain']['tokens']) == 3
    assert question['plain']['text'] is None
    assert report['memory']['held']['alive_at_most']['keys'] > 0


def test_one_image_and_a_prompt_go_to_the_reader(in_this_process, tmp_path):
    from PIL import Image
    page = digit_pages.DigitPages(held_out=True, seed=5).draw(1, 3, 4)
    Image.fromarray(page.images[0].numpy()).save(tmp_path / 'page.png')
    report = measure('--image', str(tmp_path / 'page.png'), '--prompt', 'Read row 2.')
    question, = report['questions']
    assert question['plain']['text'] == page.answer(0, 1)


@pytest.fixture(scope='module')
def subject():
    made = subjects.new_subject(Request(pages=1))
    from qvlmem.models import skeleton
    skeleton.fill(made.model, made.value_of)
    return made


def answer(subject, count, **options):
    from transformers import DynamicCache
    return generation.answer(subject.model, subject.questions[0].inputs, DynamicCache(), count, **options)


def test_forced_decoding_repeats_free_decoding(subject):
    free = answer(subject, 4)
    forced = answer(subject, 4, forced=free.tokens)
    assert forced.tokens == free.tokens and torch.equal(forced.logits, free.logits)


def test_forced_decoding_feeds_what_it_is_told(subject):
    free = answer(subject, 2)
    other = [free.tokens[0] ^ 1, free.tokens[1]]
    forced = answer(subject, 9, forced=other)
    assert forced.tokens == other
    assert torch.equal(forced.logits[0], free.logits[0])
    assert not torch.equal(forced.logits[1], free.logits[1])


def test_decoding_stops_at_an_end_token(subject):
    free = answer(subject, 3)
    assert answer(subject, 3, end_tokens={free.tokens[0]}).tokens == free.tokens[:1]


@pytest.mark.parametrize('zeroed', ['vision_features', 'deepstack_features', None])
def test_the_model_uses_the_features_that_came_back(subject, zeroed):
    class Zeroing(ledger.Ledger):
        def decompress(self, kind, compressed):
            return super().decompress(kind, compressed) * (kind != zeroed)

    plain = answer(subject, 1)
    tower = subject.model.model.visual
    features = HeldFeatures(subject.model, Zeroing(0))
    try:
        held, again = answer(subject, 1), answer(subject, 1)
    finally:
        del tower.forward
    assert torch.equal(plain.logits, held.logits) == (zeroed is None)
    assert torch.equal(held.logits, again.logits) and features.hits == 1 and len(features.images) == 1


def test_accuracy_counts_digits_by_position():
    def question(wanted, text):
        return {'wanted': wanted, 'plain': {'text': text}}

    assert run.accuracy([question('1 2 / 3 4 /', '1 2 / 3 4 /')], 'plain') == 1
    assert run.accuracy([question('1 2 / 3 4 /', '1 / 2 3 4 /')], 'plain') == 0.75
    assert run.accuracy([question('1 2 /', ''), question('5 6 /', '5 6 / 7 /')], 'plain') == 0.5
    assert run.accuracy([question(None, '1')], 'plain') is None


def test_an_answer_that_is_shorter_differs_in_what_it_lacks():
    assert run.tokens_that_differ([1, 2, 3], [1, 2, 3]) == 0
    assert run.tokens_that_differ([1, 2, 3], [1, 5, 3]) == 1
    assert run.tokens_that_differ([1, 2, 3], [1]) == 2


@pytest.mark.parametrize('width', [90, 110])
def test_the_tables_show_every_figure(report, width, tmp_path):
    path = tmp_path / 'tables.txt'
    with path.open('w') as file:
        run.print_report(report, Console(file=file, width=width))
    text = path.read_text()
    assert '\N{HORIZONTAL ELLIPSIS}' not in text  # rich's mark of a figure that had no room
    for kind, figures in report['kinds'].items():
        assert kind.split('_')[0] in text and f"{figures['ratio']:.2f}" in text
    assert f"{report['changed']['mean_kl_nats']:.3g}" in text
    assert all(name in text for name, value in report['statistics'].items() if value)


@pytest.mark.parametrize('function, arguments, reason', [
    (os._exit, [3], 'was ended: exit code 3'), (os.abort, [], 'was ended: signal SIGABRT'),
    (photograph.open_photograph, ['/no/such'], 'cannot read the image /no/such')])
def test_a_process_that_ends_early_is_an_error(function, arguments, reason):
    with pytest.raises(CommandError, match=reason):
        sides.in_fresh_process(function, *arguments)


@pytest.mark.parametrize('arguments', [
    ['--max-error', '-0.1'], ['--max-error', 'nan'], ['--max-error', '1'], ['--max-error', 'much'],
    ['--tokens', '0'], ['--tokens', '1.5'], ['--seed', '-1'], ['--bound', 'matrix'],
    ['--dtype', 'int8'], ['--prompt', 'What is this?'], ['--pages', '0'], ['--unknown'], ['file.png'],
    ['--shape', '3b'], ['--model', 'x', '--shape', '2b'], ['--prompt', 'What?', '--shape', 'small']])
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
def test_an_image_that_cannot_be_used_is_named(kind, tmp_path, capsys, in_this_process):
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
