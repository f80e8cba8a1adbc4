# SPDX-License-Identifier: Apache-2.0
"""One photograph and a prompt through Qwen3-VL: prefill, then greedy decoding a token at a time."""

import dataclasses
import inspect

import torch
from transformers import DynamicCache


@dataclasses.dataclass
class Subject:
    """A model and what it is asked; `decode_text` is None where the model has no tokenizer."""
    model: torch.nn.Module
    inputs: dict
    decode_text: object = None
    end_tokens: set = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class Answer:
    tokens: list
    logits: torch.Tensor  # [tokens, vocabulary] float32: what each token was chosen from


def forward(model, cache, **inputs):
    """The logits [vocabulary] of the last position; `cache` takes the new keys and values."""
    # transformers up to 5.20 calls it by its older name.
    parameters = inspect.signature(type(model).forward).parameters
    name = 'cache' if 'cache' in parameters else 'past_key_values'
    output = model(**inputs, **{name: cache}, use_cache=True, logits_to_keep=1)
    return output.logits[0, -1].float()


@torch.no_grad()
def prefill(subject):
    """(logits, cache) after the whole prompt with its photograph."""
    cache = DynamicCache()
    return forward(subject.model, cache, **subject.inputs), cache


@torch.no_grad()
def decode(subject, logits, cache, count, forced=None, advance=lambda: None):
    """Up to `count` greedy tokens after `prefill`; `cache` grows.

    With `forced`, these tokens are fed instead of the chosen ones: so the logits of two runs can be
    compared at every position, whatever they would choose.
    """
    answer = Answer([], logits[None])
    for step in range(count if forced is None else len(forced)):
        if step:
            token = torch.tensor([[answer.tokens[-1]]])
            logits = forward(subject.model, cache, input_ids=token)
            answer.logits = torch.cat((answer.logits, logits[None]))
        answer.tokens.append(int(logits.argmax()) if forced is None else forced[step])
        advance()
        if forced is None and answer.tokens[-1] in subject.end_tokens:
            break
    return answer
