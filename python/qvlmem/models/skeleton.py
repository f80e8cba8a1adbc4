# SPDX-License-Identifier: Apache-2.0
"""A Qwen3-VL without weights, to be filled one tensor at a time."""

import contextlib

import torch
from torch import nn
from transformers import Qwen3VLForConditionalGeneration


@contextlib.contextmanager
def parameters_on_meta():
    """Within it, what modules register as a parameter takes no memory. Buffers are as ever."""
    plain = nn.Module.register_parameter

    def register(module, name, parameter):
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to('meta'), requires_grad=False)
        plain(module, name, parameter)

    nn.Module.register_parameter = register
    try:
        yield
    finally:
        nn.Module.register_parameter = plain


def new_skeleton(config, dtype):
    """The model of `config` that computes in `dtype`, its parameters on the meta device; tied ones are one."""
    with parameters_on_meta():
        model = Qwen3VLForConditionalGeneration(config)
    for parameter in set(model.parameters()):
        parameter.data = parameter.data.to(dtype)  # not model.to(): rotary frequencies stay float32
    return model.eval()


def fill(model, value_of, advance=lambda: None):
    """Gives every parameter its value, value_of(name, parameter)."""
    values = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in values:
                value = value_of(f'{prefix}.{name}' if prefix else name, parameter)
                # Beside the value its parameter, without which the next one could have its id.
                values[id(parameter)] = nn.Parameter(value, requires_grad=False), parameter
                advance()
            module._parameters[name] = values[id(parameter)][0]
    return model
