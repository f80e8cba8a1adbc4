# SPDX-License-Identifier: Apache-2.0
"""A question through Qwen3-VL: prefill, then greedy decoding a token at a time."""

import dataclasses
import inspect
import time

import torch


@dataclasses.dataclass
class Answer:
    tokens: list
    logits: torch.Tensor  # [tokens, vocabulary] float32: what each token was chosen from
    prefill_seconds: float
    decode_seconds: float


def forward(model, cache, **inputs):
    """The logits [vocabulary] of the last position; `cache` takes the new keys and values."""
    # transformers up to 5.20 calls it by its older name.
    parameters = inspect.signature(type(model).forward).parameters
    name = 'cache' if 'cache' in parameters else 'past_key_values'
    output = model(**inputs, **{name: cache}, use_cache=True, logits_to_keep=1)
    return output.logits[0, -1].float()


@torch.no_grad()
def answer(model, inputs, cache, count, end_tokens=(), forced=None, advance=lambda: None):
    """Up to `count` greedy tokens, or fewer where one of `end_tokens` comes; `cache` is a new one.

    With `forced`, these tokens are fed instead of the chosen ones: so the logits of two runs can be
    compared at every position, whatever they would choose. `advance` is called after each token; its
    time does not count.
    """
    began = time.perf_counter()
    logits = [forward(model, cache, **inputs)]
    prefilled = time.perf_counter()
    tokens, other_seconds = [], 0.0
    for step in range(count if forced is None else len(forced)):
        if step:
            logits.append(forward(model, cache, input_ids=torch.tensor([[tokens[-1]]])))
        tokens.append(int(logits[-1].argmax()) if forced is None else forced[step])
        paused = time.perf_counter()
        advance()
        other_seconds += time.perf_counter() - paused
        if forced is None and tokens[-1] in end_tokens:
            break
    return Answer(tokens, torch.stack(logits), prefilled - began,
                  time.perf_counter() - prefilled - other_seconds)
