# SPDX-License-Identifier: Apache-2.0
"""The main job's two sides, each in a fresh process: the model plain, and the model held compressed."""

import contextlib
import dataclasses
import gc
import multiprocessing
import pickle
import signal
import time

from qvlmem.commands import CommandError, terminal
from qvlmem.models import ledger, machine


@dataclasses.dataclass
class Side:
    """What came of one side; plain data."""
    answers: list  # a generation.Answer a question
    questions: list  # {prompt, wanted, prompt_tokens} a question
    texts: list  # a text a question, None without a tokenizer
    facts: dict  # of the model
    memory: dict  # bytes: alive by kind when most was, of the process, of the allocator
    timeline: list  # a sample a token: [seconds, {kind: bytes alive}, resident bytes]
    seconds: dict
    kinds: dict = None  # figures by kind, and the other fields: of the held side alone
    total: dict = None
    statistics: dict = None
    tensors: list = None
    forced: list = None  # the answers with the plain side's tokens fed


def plain_side(request):
    """The model as it is."""
    from qvlmem.models import generation, skeleton
    from transformers import DynamicCache

    run = _Run(request)
    with run.loading('loading') as advance:
        skeleton.fill(run.subject.model, run.subject.value_of, advance)
    weights = list(run.subject.model.parameters())
    answers = []
    with terminal.one_step('answering', len(run.subject.questions)) as advance:
        for question in run.subject.questions:
            cache = DynamicCache()

            def alive(cache=cache):
                run.sample({ledger.WEIGHTS: weights,
                            ledger.KEYS: [layer.keys for layer in cache.layers],
                            ledger.VALUES: [layer.values for layer in cache.layers]})

            answers.append(generation.answer(run.subject.model, question.inputs, cache, request.tokens,
                                             run.subject.end_tokens, advance=alive))
            advance()
    return run.finish(answers)


def held_side(request, plain_tokens):
    """Weights, vision features, keys and values held compressed; `plain_tokens`: the plain side's answers."""
    from qvlmem.models import generation
    from qvlmem.models.held_cache import CompressedCache
    from qvlmem.models.held_features import HeldFeatures
    from qvlmem.models.held_weights import HeldWeights

    run = _Run(request)
    subject, book = run.subject, ledger.Ledger(request.max_error, request.bound)
    # What libraries set up at the first matrix of a shape is no memory of the weights.
    warm, shapes = ledger.Ledger(request.max_error, request.bound), set()
    for name, parameter in subject.model.named_parameters():
        if parameter.numel() <= 1 << 20 and parameter.shape not in shapes:
            shapes.add(parameter.shape)
            warm.compress(ledger.WEIGHTS, name, subject.value_of(name, parameter))
    with run.loading('compressing') as advance:
        weights = HeldWeights(subject.model, book, subject.value_of, advance)
    features = HeldFeatures(subject.model, book)
    layers = len(subject.model.model.language_model.layers)
    answers, forced = [], []
    with terminal.one_step('answering held', len(subject.questions)) as advance:
        for question in subject.questions:
            features.clear()
            cache = CompressedCache(book, layers)

            def alive(cache=cache):
                owners = weights, features, cache
                run.sample(*({kind: given for owner in owners for kind, given in getattr(owner, what)().items()}
                             for what in ('alive', 'original_bytes')))

            answers.append(generation.answer(subject.model, question.inputs, cache, request.tokens,
                                             subject.end_tokens, advance=alive))
            advance()
    result = run.finish(answers)
    result.kinds, result.total = book.kinds(), book.total()
    result.statistics = dict(book.manager.get_compression_stats())
    result.tensors = [dataclasses.asdict(entry) for entry in book.entries]
    result.memory['peak_restored_weights'] = weights.peak_restored_bytes
    with terminal.one_step('comparing', len(subject.questions)) as advance:
        for question, given, tokens in zip(subject.questions, answers, plain_tokens):
            if given.tokens != tokens:
                given = generation.answer(subject.model, question.inputs, CompressedCache(book, layers),
                                          request.tokens, forced=tokens)
            forced.append(given)
            advance()
    result.forced = forced
    return result


class _Run:
    """What both sides do: progress, clock, samples."""

    def __init__(self, request):
        from qvlmem.models import subjects
        self.began = time.perf_counter()
        self.subject = subjects.new_subject(request)
        self.resident_before = machine.process_memory()[0]
        self.allocated_weights = None
        self.timeline = []
        self.most = {}, {}  # {kind: bytes} uncompressed and as held, when the former were the most
        self.load_seconds = None

    @contextlib.contextmanager
    def loading(self, description):
        """Within it the model gets its weights; yields advance(), to be called for each."""
        gc.collect()
        before, began = machine.allocated_bytes(), time.perf_counter()
        with terminal.one_step(description, len(set(self.subject.model.parameters()))) as advance:
            yield advance
        self.load_seconds = time.perf_counter() - began
        gc.collect()
        if before is not None:
            self.allocated_weights = machine.allocated_bytes() - before

    def sample(self, alive, original_bytes=None):
        """Notes what is alive: {kind: tensors}, and {kind: bytes} of what they would be uncompressed."""
        bytes_alive = {kind: ledger.storage_bytes(tensors) for kind, tensors in alive.items()}
        self.timeline.append([round(time.perf_counter() - self.began, 4), bytes_alive,
                              machine.process_memory()[0]])
        original_bytes = original_bytes or bytes_alive
        if sum(original_bytes.values()) > sum(self.most[0].values()):
            self.most = original_bytes, bytes_alive

    def finish(self, answers):
        model = self.subject.model
        decode = self.subject.decode_text
        original_bytes, bytes_alive = self.most
        return Side(
            answers=answers,
            questions=[{'prompt': question.prompt, 'wanted': question.wanted,
                        'prompt_tokens': question.inputs['input_ids'].shape[-1]}
                       for question in self.subject.questions],
            texts=[decode(answer.tokens, skip_special_tokens=True) if decode else None for answer in answers],
            facts={
                'parameters': sum(parameter.numel() for parameter in model.parameters()),
                'text_layers': len(model.model.language_model.layers),
                'deepstack_taps': len(model.model.visual.deepstack_visual_indexes),
            },
            memory={
                'alive_at_most': bytes_alive,
                'uncompressed_at_most': original_bytes,
                'weights_allocator': self.allocated_weights,
                'process_before': self.resident_before,
                'process_peak': machine.process_memory()[1],
            },
            timeline=self.timeline,
            seconds={
                'load': self.load_seconds,
                'prefill': sum(answer.prefill_seconds for answer in answers),
                'decode': sum(answer.decode_seconds for answer in answers),
            })


def in_fresh_process(function, *arguments):
    """What `function` returns in a new Python process, so that its peak memory is its own."""
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        kind, value = pickle.loads(receiver.recv_bytes())
    except EOFError:
        process.join()
        code = process.exitcode
        reason = (f'signal {signal.Signals(-code).name}' + (', most likely for want of memory' if code == -9 else '')
                  if code < 0 else f'exit code {code}')
        raise CommandError(f'the process that ran the model was ended: {reason}') from None
    finally:
        process.kill()
        process.join()
    if kind == 'error':
        raise value
    return value


def _child(sender, function, arguments):
    # Ctrl-C goes to the whole group; the parent kills this process and says so once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        message = 'result', function(*arguments)
    except (CommandError, MemoryError, RuntimeError) as error:
        message = 'error', error
    # Not send: PyTorch's pickler would pass tensors as shared memory of this process, which ends.
    sender.send_bytes(pickle.dumps(message))
