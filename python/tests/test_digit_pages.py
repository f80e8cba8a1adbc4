# SPDX-License-Identifier: Apache-2.0
"""Pages of digits: repeatable, the split kept, and as the processor and the trainer see them the same."""

import argparse
import importlib
import pathlib
import sys

import pytest
import torch
from PIL import Image

pytest.importorskip('transformers')
pytest.importorskip('sklearn')

from qvlmem.models import checkpoint, digit_pages, skeleton, subjects  # noqa: E402
from qvlmem.models.digit_pages import CELL, DigitPages  # noqa: E402
from qvlmem.models.request import Request  # noqa: E402

TRAINING = pathlib.Path(__file__).resolve().parents[2] / 'tools' / 'training'


def test_no_digit_is_on_both_sides_of_the_split():
    training, held_out = DigitPages(held_out=False), DigitPages(held_out=True)
    assert len(training.labels) + len(held_out.labels) == 1797 and len(held_out.labels) == 359
    scans = {bytes(scan.numpy()) for scan in training.scans}
    assert not scans & {bytes(scan.numpy()) for scan in held_out.scans}


def test_the_same_seed_draws_the_same_pages():
    first, again, other = (DigitPages(True, seed).draw(2, 3, 4) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images) and torch.equal(first.digits, again.digits)
    assert not torch.equal(first.digits, other.digits)
    assert first.images.shape == (2, 3 * CELL, 4 * CELL) and first.digits.shape == (2, 3, 4)


def test_questions_and_answers():
    page = digit_pages.Pages(torch.zeros(1, 64, 96), torch.tensor([[[1, 2, 3], [4, 5, 6]]]))
    assert (page.question(), page.answer(0)) == ('Read the page.', '1 2 3 / 4 5 6 /')
    assert (page.question(1), page.answer(0, 1)) == ('Read row 2.', '4 5 6 /')


@pytest.fixture(scope='module')
def train_digit_reader():
    sys.path.insert(0, str(TRAINING))
    try:
        return importlib.import_module('train_digit_reader')
    finally:
        sys.path.remove(str(TRAINING))


def test_training_writes_a_checkpoint_that_runs(train_digit_reader, tmp_path):
    options = argparse.Namespace(seed=0, steps=2, digits=24, learning_rate=1e-3, output=tmp_path)
    model, _ = train_digit_reader.train(options)
    subject = subjects.new_subject(Request(model=tmp_path, image=None, prompt='Read row 1.'))
    skeleton.fill(subject.model, subject.value_of)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, subject.model.get_parameter(name)), name
    assert torch.isfinite(subject.model(**subject.questions[0].inputs).logits).all()


def test_the_processor_makes_of_a_page_what_training_does(train_digit_reader):
    processor = checkpoint.load_processor(subjects.digit_reader())
    for rows, columns in ((2, 3), (6, 8), (4, 5)):
        page = DigitPages(True).draw(1, rows, columns)
        inputs = checkpoint.processor_inputs(
            processor, Image.fromarray(page.images[0].numpy()).convert('RGB'), page.question(1))
        pixels, grid = train_digit_reader.patches_of(page.images)
        torch.testing.assert_close(inputs['pixel_values'], pixels)
        assert torch.equal(inputs['image_grid_thw'], grid)
        config, ends = checkpoint.load_config(subjects.digit_reader())
        examples = train_digit_reader.Examples(processor, config, held_out=True, seed=0)
        batch = examples.batch(1, (rows, columns), row=1)
        prompt = inputs['input_ids'].shape[1]
        assert torch.equal(batch[0]['input_ids'][:, :prompt], inputs['input_ids'])
        assert set(batch[0]['input_ids'][0, -1:].tolist()) == ends
