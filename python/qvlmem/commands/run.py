# SPDX-License-Identifier: Apache-2.0
"""The main job: a Qwen3-VL looks at a photograph, plain and with its tensors compressed.

Every weight, vision feature, hidden state, key and value of a forward pass goes through `compress`
with the method 'auto' and comes back. Printed are, per kind, what that saves, its error and its
speed, and what changes in the model's answer: weights, vision features and the prompt's keys and
values are the ones that came back, hidden states are compressed for their figures only.
"""

import argparse
import functools
import importlib.util
import math
import pathlib
import time

import torch

import qvlmem
from qvlmem.commands import CommandError, terminal
from qvlmem.models import checkpoint, photograph

SUMMARY = 'Qwen3-VL on a photograph, plain and with its tensors compressed'
DTYPES = {'bf16': 'bfloat16', 'fp16': 'float16', 'fp32': 'float32'}
DEFAULT_PROMPT = 'Describe this image.'


def bounded(parse, low, below, what):
    def convert(text):
        try:
            value = parse(text)
        except ValueError:
            value = math.nan
        if not low <= value < below:
            raise argparse.ArgumentTypeError(f"expected {what}, got '{text}'")
        return value
    return convert


def add_arguments(parser):
    parser.add_argument('--model', metavar='PATH_OR_NAME',
                        help='a Qwen3-VL checkpoint: a folder, or a name on the Hugging Face hub '
                        '(default: a small model with seeded weights)')
    parser.add_argument('--image', metavar='FILE', type=pathlib.Path,
                        help="the photograph (default: scikit-image's cup of coffee)")
    parser.add_argument('--prompt', metavar='TEXT',
                        help=f"what the model is asked (with --model; default: '{DEFAULT_PROMPT}')")
    parser.add_argument('--max-error', metavar='E', default=0.01,
                        type=bounded(float, 0, 1, 'a number from 0 (bit-exact) to below 1'),
                        help='the relative error that compression may cause (default: 0.01)')
    parser.add_argument('--bound', choices=('tensor', 'row', 'element'), default='tensor',
                        help='what --max-error holds for: the norm of each tensor (default), of '
                        'each of its rows, or each element against the largest')
    parser.add_argument('--dtype', choices=DTYPES, default='bf16',
                        help='what the model computes in (default: bf16)')
    parser.add_argument('--tokens', metavar='N', default=16,
                        type=bounded(int, 1, 1 << 20, 'a number of tokens from 1'),
                        help='tokens to answer with (default: 16)')
    parser.add_argument('--seed', metavar='N', default=0,
                        type=bounded(int, 0, 1 << 63, 'a number from 0'),
                        help="the small model's weights and prompt (default: 0)")
    parser.add_argument('--json', action='store_true', help='print one JSON document and no tables')


def main(options, parser):
    if options.prompt is not None and options.model is None:
        parser.error('--prompt needs --model: the small model has no tokenizer')
    report = measure(options)
    if options.json:
        terminal.print_json(report)
    else:
        print_report(report, terminal.output_console())
    return 0


def measure(options):
    """Does it all and returns the figures as plain data (what --json prints)."""
    for name in ('transformers', 'torchvision'):
        if importlib.util.find_spec(name) is None:
            raise CommandError(f'this needs {name}, which is not installed (tools/build installs it)')
    try:
        qvlmem.load_library()
    except ImportError as error:
        raise CommandError(error) from None
    clock = Clock()
    path = options.image or photograph.default_photograph()
    image = photograph.open_photograph(path)
    folder = None
    if options.model is not None:
        folder = checkpoint.find_checkpoint(options.model)
        checkpoint.check_folder(folder, getattr(torch, DTYPES[options.dtype]))
    with terminal.Steps() as steps:
        with steps.step('loading', 1):
            subject = load_subject(options, folder, path, image)
        clock.lap('load')

        # Imports of transformers take seconds; what the user gave has been looked at by now.
        from qvlmem.models import generation, held_model, ledger, tensor_error

        with steps.step('plain run', options.tokens) as advance:
            plain = generation.decode(subject, *generation.prefill(subject), options.tokens,
                                      advance=advance)
        clock.lap('plain_run')

        book = ledger.Ledger(options.max_error, options.bound)
        model = subject.model
        with steps.step('compressing', held_model.tensors_held(model)) as advance:
            held_model.hold_weights(model, book, advance)
            with held_model.held_features(model, book, advance):
                logits, cache = generation.prefill(subject)
            held_cache = held_model.hold_cache(cache, book, advance)
        clock.lap('compress_and_prefill')

        with steps.step('held run', len(plain.tokens)) as advance:
            forced = generation.decode(subject, logits, held_model.restored_cache(held_cache),
                                       options.tokens, plain.tokens, advance)
            changed = tensor_error.compare_logits(plain.logits, forced.logits)
            free = plain.tokens
            if changed['next_tokens_that_differ']:
                free = generation.decode(subject, logits, held_model.restored_cache(held_cache),
                                         options.tokens).tokens
        clock.lap('held_run')

    return {
        'settings': {'max_error': options.max_error, 'bound': options.bound,
                     'dtype': DTYPES[options.dtype], 'tokens': options.tokens},
        **describe(options, subject, path, image),
        'kinds': book.kinds(),
        'total': book.total(),
        'total_without_hidden_states': book.total(held_model.HIDDEN),
        'changed': {**changed, 'tokens_that_differ': tokens_that_differ(plain.tokens, free)},
        'answers': {'plain': answer(subject, plain.tokens), 'held': answer(subject, free)},
        'seconds': clock.laps,
        'tensors': [vars(entry) for entry in book.entries],
    }


class Clock:
    """Seconds between laps, rounded to milliseconds."""

    def __init__(self):
        self.laps = {}
        self._last = time.perf_counter()

    def lap(self, name):
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


def load_subject(options, folder, path, image):
    """The model and its inputs; `folder` is a checked checkpoint, or None for the small model."""
    import transformers
    from qvlmem.models import generation, small_qwen3_vl

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dtype = getattr(torch, DTYPES[options.dtype])
    if folder is None:
        model = small_qwen3_vl.small_model(options.seed, dtype)
        make_inputs = functools.partial(small_qwen3_vl.small_inputs, seed=options.seed)
    else:
        model, processor = checkpoint.load_checkpoint(folder, dtype)
        make_inputs = functools.partial(checkpoint.processor_inputs, processor,
                                        prompt=options.prompt or DEFAULT_PROMPT)
    try:
        subject = generation.Subject(model, make_inputs(image=image))
    except ValueError as error:  # an image that the processor does not take, such as a thin line
        raise CommandError(f'{path}: {error}') from None
    if folder is not None:
        ends = model.generation_config.eos_token_id
        subject.end_tokens = {ends} if isinstance(ends, int) else set(ends or ())
        subject.decode_text = processor.tokenizer.decode
    return subject


def describe(options, subject, path, image):
    model = subject.model
    return {
        'model': {
            'name': options.model or f'small Qwen3-VL, seed {options.seed}',
            'seeded': options.model is None,
            'parameters': sum(parameter.numel() for parameter in model.parameters()),
            'text_layers': len(model.model.language_model.layers),
            'deepstack_taps': len(model.model.visual.deepstack_visual_indexes),
        },
        'image': {'path': str(path), 'width': image.width, 'height': image.height},
        'prompt_tokens': subject.inputs['input_ids'].shape[-1],
    }


def tokens_that_differ(plain, held):
    """Positions with another token; where one answer is shorter, what it lacks differs too."""
    shared = sum(a == b for a, b in zip(plain, held))
    return max(len(plain), len(held)) - shared


def answer(subject, tokens):
    text = subject.decode_text(tokens) if subject.decode_text else None
    return {'tokens': tokens, 'text': text}


def print_report(report, console):
    settings, model, image = report['settings'], report['model'], report['image']
    terminal.print_lines(
        console,
        f"{model['name']}: {model['parameters'] / 1e6:.1f} M parameters in {settings['dtype']}, "
        f"{model['text_layers']} text layers, {model['deepstack_taps']} DeepStack taps",
        f"{image['path']}: {image['width']} x {image['height']}, "
        f"{report['prompt_tokens']} prompt tokens", '')
    console.print(kinds_table(report))
    console.print()
    console.print(changes_table(report))
    for name, given in report['answers'].items():
        said = given['text'] if given['text'] is not None else ' '.join(map(str, given['tokens']))
        terminal.print_lines(console, f'{name}: {said}')
    terminal.print_lines(console, '', ', '.join(f"{name.replace('_', ' ')} {seconds:.1f} s"
                                                for name, seconds in report['seconds'].items()))


def kinds_table(report):
    settings = report['settings']
    table = terminal.new_table(
        f"Compressed with 'auto', max_error {settings['max_error']:g}, bound {settings['bound']}",
        'kind', 'count', 'MiB\nbefore', 'MiB\nafter', 'ratio', 'codecs', 'worst\nerror', 'GB/s\nin',
        'GB/s\nout', text=('codecs',), caption='GB/s of the bytes before: in is compressing, out '
        'decompressing. Hidden states are measured, not held.')
    rows = report['kinds'] | {'all': report['total'],
                              'all but hidden states': report['total_without_hidden_states']}
    for index, (kind, figures) in enumerate(rows.items()):
        if index == len(report['kinds']):
            table.add_section()
        table.add_row(
            kind.replace('_', ' '), str(figures['tensors']), f"{figures['bytes_before'] / 2**20:.3f}",
            f"{figures['bytes_after'] / 2**20:.3f}", f"{figures['ratio']:.2f}",
            '\n'.join(f'{method} {count}' for method, count in figures['codecs'].items()),
            'exact' if figures['exact'] else f"{figures['worst_error']:.5f}",
            f"{figures['compress_gb_per_s']:.2g}", f"{figures['decompress_gb_per_s']:.2g}")
    return table


def changes_table(report):
    changed, count = report['changed'], len(report['answers']['plain']['tokens'])
    caption = None
    if report['model']['seeded'] and changed['tokens_that_differ']:
        caption = ('Seeded weights know nothing and prefer nothing: a trained model changes its '
                   'tokens less easily.')
    table = terminal.new_table('What changed in the answer', '', 'held against plain',
                               caption=caption)
    for what, figure in (
            ('logits, largest difference', f"{changed['max_logit_difference']:.4f}"),
            ('logits, mean difference', f"{changed['mean_logit_difference']:.5f}"),
            ('logits, standard deviation of the plain ones', f"{changed['logit_spread']:.2f}"),
            ('KL divergence, mean', f"{changed['mean_kl_nats']:.3g} nats"),
            ('KL divergence, largest', f"{changed['max_kl_nats']:.3g} nats"),
            ('next tokens that differ after the same text',
             f"{changed['next_tokens_that_differ']} of {changed['positions']}"),
            ('tokens of the whole answer that differ', f"{changed['tokens_that_differ']} of {count}")):
        table.add_row(what, figure)
    return table
