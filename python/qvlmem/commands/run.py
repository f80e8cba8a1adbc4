# SPDX-License-Identifier: Apache-2.0
"""The main job: a Qwen3-VL answers questions about images, plain and with its memory held compressed.

Both sides run in fresh processes and compute in the same dtype. The held side keeps weights, vision features
(merged and DeepStack), keys and values compressed, and decompresses each just before it is used. Printed are,
by kind, what that saves and its error; how the answers change; and what it costs in time.

Without --model or --shape this runs a small Qwen3-VL that has been trained to read pages of scanned digits
and ships with the project, on digits that it never saw in training.
"""

import argparse
import dataclasses
import importlib.util
import math
import pathlib

import qvlmem
from qvlmem.commands import CommandError, terminal
from qvlmem.models import checkpoint, photograph
from qvlmem.models.request import DTYPES, Request

SUMMARY = 'Qwen3-VL on images, plain and with its memory held compressed'


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
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--model', metavar='PATH_OR_NAME',
                      help='a Qwen3-VL checkpoint: a folder, or a name on the Hugging Face hub (default: the '
                      'digit reader that ships with the project)')
    what.add_argument('--shape', choices=('small', '2b'),
                      help='seeded weights instead, in the sizes of Qwen3-VL-2B or of a small model: what '
                      'memory and time come to, without a checkpoint')
    parser.add_argument('--image', metavar='FILE', type=pathlib.Path,
                        help="the image (default: pages of digits; with --model or --shape scikit-image's "
                        'cup of coffee)')
    parser.add_argument('--prompt', metavar='TEXT', help='what is asked about the image (digit reader: '
                        "'Read the page.' or 'Read row 2.')")
    parser.add_argument('--pages', metavar='N', default=24, type=bounded(int, 1, 10000, 'a number from 1'),
                        help='pages of held-out digits, where there is no --image (default: 24)')
    parser.add_argument('--max-error', metavar='E', default=0.01,
                        type=bounded(float, 0, 1, 'a number from 0 (bit-exact) to below 1'),
                        help='the relative error that compression may cause (default: 0.01)')
    parser.add_argument('--bound', choices=('row', 'tensor', 'element'), default='row',
                        help='what --max-error holds for: each row of each tensor (default), the norm of each '
                        'tensor, or each element against the largest')
    parser.add_argument('--dtype', choices=DTYPES, default='bf16',
                        help='what the model computes in (default: bf16)')
    parser.add_argument('--tokens', metavar='N', type=bounded(int, 1, 1 << 20, 'a number of tokens from 1'),
                        help='tokens to answer with at most (default: 16; digit reader 64)')
    parser.add_argument('--seed', metavar='N', default=0,
                        type=bounded(int, 0, 1 << 31, 'a number from 0'),
                        help='of the pages, or of the weights and prompt of --shape (default: 0)')
    parser.add_argument('--json', action='store_true', help='print one JSON document and no tables')


def main(options, parser):
    if options.prompt is not None and options.shape:
        parser.error('--prompt does not go with --shape: seeded weights have no tokenizer')
    if options.prompt is not None and not options.model and options.image is None:
        parser.error('--prompt needs --image or --model: without, the pages bring their own questions')
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
    request = new_request(options)

    # Imports of transformers take seconds; what the user gave has been looked at by now.
    from qvlmem.models import sides
    plain = sides.in_fresh_process(sides.plain_side, request)
    held = sides.in_fresh_process(sides.held_side, request, [answer.tokens for answer in plain.answers])
    return new_report(request, plain, held)


def new_request(options):
    """What the two sides are asked, after a look at all that can be wrong with it."""
    if options.image is not None:
        photograph.open_photograph(options.image)
    folder = None
    if options.model is not None:
        folder = checkpoint.find_checkpoint(options.model)
        checkpoint.check_folder(folder, DTYPES[options.dtype])
    reader = folder is None and options.shape is None
    return Request(model=folder, shape=options.shape, image=options.image, prompt=options.prompt,
                   dtype=options.dtype, max_error=options.max_error, bound=options.bound,
                   tokens=options.tokens or (64 if reader else 16), pages=options.pages, seed=options.seed)


def new_report(request, plain, held):
    from qvlmem.models import tensor_error
    changed = tensor_error.compare_logits([answer.logits for answer in plain.answers],
                                          [answer.logits for answer in held.forced])
    changed['tokens_that_differ'] = sum(tokens_that_differ(a.tokens, b.tokens)
                                        for a, b in zip(plain.answers, held.answers))
    questions = [{**question, 'plain': {'tokens': a.tokens, 'text': text_a},
                  'held': {'tokens': b.tokens, 'text': text_b}}
                 for question, a, b, text_a, text_b in zip(
                     plain.questions, plain.answers, held.answers, plain.texts, held.texts)]
    settings = {key: value for key, value in dataclasses.asdict(request).items() if key in (
        'shape', 'prompt', 'max_error', 'bound', 'tokens', 'seed')}
    return {
        'settings': {**settings, 'dtype': str(DTYPES[request.dtype]).removeprefix('torch.')},
        'model': {'name': model_name(request), 'seeded': request.shape is not None, **plain.facts},
        'image': str(request.image) if request.image else None,
        'kinds': held.kinds,
        'total': held.total,
        'accuracy': {'plain': accuracy(questions, 'plain'), 'held': accuracy(questions, 'held')},
        'changed': changed,
        'memory': {'plain': plain.memory, 'held': held.memory},
        'seconds': {'plain': plain.seconds, 'held': held.seconds},
        'statistics': held.statistics,
        'questions': questions,
        'tensors': held.tensors,
        'timeline': {'plain': plain.timeline, 'held': held.timeline},
    }


def model_name(request):
    if request.shape:
        return f'Qwen3-VL of the shape {request.shape}, weights of seed {request.seed}'
    return str(request.model) if request.model else 'digit reader'


def accuracy(questions, side):
    """The share of digits that are right, by position; None where no right answer is known."""
    right = total = 0
    for question in questions:
        if question['wanted'] is not None:
            wanted = question['wanted'].split()
            given = question[side]['text'].split()
            pairs = [(a, b) for a, b in zip(wanted, given + [''] * len(wanted)) if a.isdigit()]
            right += sum(a == b for a, b in pairs)
            total += len(pairs)
    return right / total if total else None


def tokens_that_differ(plain, held):
    """Positions with another token; where one answer is shorter, what it lacks differs too."""
    shared = sum(a == b for a, b in zip(plain, held))
    return max(len(plain), len(held)) - shared


def print_report(report, console):
    settings, model = report['settings'], report['model']
    questions = report['questions']
    terminal.print_lines(
        console,
        f"{model['name']}: {model['parameters'] / 1e6:.1f} M parameters in {settings['dtype']}, "
        f"{model['text_layers']} text layers, {model['deepstack_taps']} DeepStack taps",
        f"{len(questions)} question{'s' * (len(questions) > 1)}, "
        f"{sum(question['prompt_tokens'] for question in questions)} prompt tokens", '')
    for table in (kinds_table(report), memory_table(report), changes_table(report), statistics_table(report)):
        console.print(table)
        console.print()
    for question in [q for q in questions if q['plain'] != q['held']][:3] or questions[:1]:
        if question['prompt']:
            terminal.print_lines(console, f"asked: {question['prompt']}")
        for name in ('plain', 'held'):
            said = question[name]['text']
            said = said if said is not None else ' '.join(map(str, question[name]['tokens']))
            terminal.print_lines(console, f'{name}: {said}')


def kinds_table(report):
    settings = report['settings']
    table = terminal.new_table(
        f"Compressed with 'auto', max_error {settings['max_error']:g}, bound {settings['bound']}",
        'kind', 'count', 'MiB\nbefore', 'MiB\nafter', 'ratio', 'codecs', 'tensor\nerror', 'row\nerror',
        'GB/s\nin', 'GB/s\nout', text=('codecs',),
        caption='Errors are the worst of the kind. GB/s are of the bytes before; in is choosing the codec and '
        'compressing, out decompressing.')
    rows = report['kinds'] | {'all': report['total']}
    for index, (kind, figures) in enumerate(rows.items()):
        if index == len(report['kinds']):
            table.add_section()
        table.add_row(
            kind.replace('_', ' '), str(figures['tensors']), mib(figures['bytes_before']),
            mib(figures['bytes_after']), f"{figures['ratio']:.2f}",
            '\n'.join(f'{method} {count}' for method, count in figures['codecs'].items()),
            *(f'{figures[key]:.5f}' if figures[key] else 'exact'
              for key in ('worst_tensor_error', 'worst_row_error')),
            f"{figures['compress_gb_per_s']:.2g}", f"{figures['decompress_gb_per_s']:.2g}")
    return table


def mib(count):
    return f'{count / 2**20:.3f}' if count < 100 << 20 else f'{count / 2**20:.1f}'


def memory_table(report):
    held = report['memory']['held']
    table = terminal.new_table('Alive when most was, MiB', '', 'uncompressed', 'held', 'ratio',
                               caption='By the storages of all tensors alive; the plain side drops features after '
                               'the prefill. allocator: what the C allocator gave out for the weights.')
    before, after = held['uncompressed_at_most'], held['alive_at_most']
    rows = {kind.replace('_', ' '): (before[kind], after[kind]) for kind in before}
    rows['all of these'] = sum(before.values()), sum(after.values())
    for name, key in (('weights, by the allocator', 'weights_allocator'), ('peak of the process', 'process_peak')):
        rows[name] = tuple(report['memory'][side][key] for side in ('plain', 'held'))
    rows['decompressed weights'] = None, held['peak_restored_weights']
    for name, (plain, compressed) in rows.items():
        if name == 'all of these':
            table.add_section()
        table.add_row(name, *('' if figure is None else mib(figure) for figure in (plain, compressed)),
                      f'{plain / compressed:.2f}' if plain and compressed else '')
        if name == 'all of these':
            table.add_section()
    return table


def changes_table(report):
    changed, accuracies, seconds = report['changed'], report['accuracy'], report['seconds']
    tokens = sum(len(question['plain']['tokens']) for question in report['questions'])
    caption = None
    if report['model']['seeded'] and changed['tokens_that_differ']:
        caption = ('Seeded weights know nothing and prefer nothing: a trained model changes its tokens less '
                   'easily.')
    table = terminal.new_table('What it costs', '', 'plain', 'held', caption=caption)
    if accuracies['plain'] is not None:
        table.add_row('held-out digits read rightly', *(f'{100 * accuracies[side]:.2f} %'
                                                        for side in ('plain', 'held')))
    table.add_row('tokens that differ', '', f"{changed['tokens_that_differ']} of {tokens}")
    table.add_row('next tokens that differ after the same text', '',
                  f"{changed['next_tokens_that_differ']} of {changed['positions']}")
    table.add_row('KL divergence, mean, nats', '', f"{changed['mean_kl_nats']:.3g}")
    table.add_row('KL divergence, largest, nats', '', f"{changed['max_kl_nats']:.3g}")
    table.add_row('logits, mean difference', f"spread {changed['logit_spread']:.2f}",
                  f"{changed['mean_logit_difference']:.4f}")
    for name, title in (('load', 'load, seconds'), ('prefill', 'prefill, seconds'), ('decode', 'decode, seconds')):
        table.add_row(title, *(f'{seconds[side][name]:.2f}' for side in ('plain', 'held')))
    return table


def statistics_table(report):
    table = terminal.new_table('Statistics of the manager', '', 'held')
    for name, value in report['statistics'].items():
        if value:
            table.add_row(name, f'{value:.0f}' if value == int(value) else f'{value:.3f}')
    return table
