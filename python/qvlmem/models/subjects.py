# SPDX-License-Identifier: Apache-2.0
"""What the main job runs: a model that is still without weights, where these come from, and questions."""

import dataclasses
import functools
import pathlib
import random

import torch
from PIL import Image

from qvlmem.commands import CommandError
from qvlmem.models import checkpoint, digit_pages, photograph, shapes, skeleton
from qvlmem.models.request import DTYPES

DEFAULT_PROMPT = 'Describe this image.'


@dataclasses.dataclass
class Question:
    inputs: dict
    prompt: str = None
    wanted: str = None  # the right answer, where it is known


@dataclasses.dataclass
class Subject:
    model: torch.nn.Module  # a skeleton
    value_of: object
    questions: list
    decode_text: object = None  # tokens to text, where there is a tokenizer
    end_tokens: frozenset = frozenset()


def digit_reader():
    """The folder of the trained model that ships with the project."""
    here = pathlib.Path(__file__).resolve()
    for folder in (here.parents[1] / 'data' / 'digit_reader', here.parents[3] / 'data' / 'digit_reader'):
        if (folder / 'config.json').is_file():
            return folder
    raise CommandError('the trained digit reader is not installed; give --model or --shape')


def new_subject(request):
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return _seeded(request) if request.shape else _from_folder(request)


def _seeded(request):
    dtype = DTYPES[request.dtype]
    config = shapes.shape_config(request.shape)
    path, image = _image(request)
    return Subject(
        model=skeleton.new_skeleton(config, dtype),
        value_of=lambda name, parameter: shapes.seeded_weight(name, parameter.shape, dtype, request.seed),
        questions=[Question(_inputs(functools.partial(shapes.seeded_inputs, config, seed=request.seed), image,
                                    path))])


def _from_folder(request):
    folder = request.model or digit_reader()
    config, ends = checkpoint.load_config(folder)
    processor = checkpoint.load_processor(folder)
    model = skeleton.new_skeleton(config, DTYPES[request.dtype])
    weights = checkpoint.Weights(folder, DTYPES[request.dtype])
    weights.check(model)
    if request.model is None and request.image is None:
        questions = page_questions(processor, request.pages, request.seed)
    else:
        path, image = _image(request)
        prompt = request.prompt or (DEFAULT_PROMPT if request.model else digit_pages.WHOLE_PAGE)
        make = functools.partial(checkpoint.processor_inputs, processor, prompt=prompt)
        for mark in (processor.image_token, processor.video_token):
            if mark in prompt:
                raise CommandError(f'the prompt has {mark}, which stands for an image; leave it out')
        questions = [Question(_inputs(make, image, path), prompt)]
    return Subject(model, weights.value_of, questions, processor.tokenizer.decode, frozenset(ends))


def page_questions(processor, pages, seed):
    """One question on each of `pages` pages of held-out digits: every third for one row, the rest for all."""
    source, choose = digit_pages.DigitPages(held_out=True, seed=seed), random.Random(seed)
    questions = []
    for index in range(pages):
        page = source.draw(1, *source.draw_size())
        row = choose.randrange(page.digits.shape[1]) if index % 3 == 2 else None
        image = Image.fromarray(page.images[0].numpy()).convert('RGB')
        prompt = page.question(row)
        questions.append(Question(checkpoint.processor_inputs(processor, image, prompt), prompt,
                                  page.answer(0, row)))
    return questions


def _image(request):
    path = request.image or photograph.default_photograph()
    return path, photograph.open_photograph(path)


def _inputs(make, image, path):
    try:
        return make(image=image)
    except Exception as error:  # a thin line of an image, a chat template that fails: whatever comes of it
        raise CommandError(f'{path}: the processor cannot take it: {checkpoint.first_line(error)}') from None
