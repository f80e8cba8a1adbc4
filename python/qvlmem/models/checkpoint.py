# SPDX-License-Identifier: Apache-2.0
"""Qwen3-VL checkpoints: found, checked before anything is loaded, loaded."""

import json
import math
import pathlib
import re
import sys

import torch

from qvlmem import files
from qvlmem.commands import CommandError
from qvlmem.models import machine

MODEL_TYPE = 'qwen3_vl'
WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
HUB_FILES = ['*.json', '*.safetensors', '*.txt', '*.jinja']
READ_DTYPES = ('bfloat16', 'float16', 'float32', 'float64')  # 8 bits come with scales of their own
# What cannot do without; each entry lists names of which one has to be there.
NEEDED = [('config.json',), (WEIGHTS, INDEX),
          ('preprocessor_config.json', 'processor_config.json'),
          ('tokenizer.json', 'vocab.json'), ('tokenizer_config.json',)]


def find_checkpoint(name):
    """The folder of a checkpoint: `name` itself where it is one, else fetched from the hub."""
    folder = pathlib.Path(name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CommandError(f'{name} is a file; a model is a folder with config.json and safetensors')
    if not re.fullmatch(r'[\w.-]*\w[\w.-]*/[\w.-]*\w[\w.-]*', name) or name.startswith('.'):
        raise CommandError(f'there is no folder {name}')
    return fetch_from_hub(name)


def fetch_from_hub(name):
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (GatedRepoError, HfHubHTTPError, HFValidationError,
                                        LocalEntryNotFoundError, RepositoryNotFoundError)
    from huggingface_hub.utils import disable_progress_bars
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        # The small files first: a wrong model, or one in shards that do not fit, is known before its weights.
        folder = pathlib.Path(snapshot_download(name, allow_patterns=['*.json']))
        read_config(folder)
        if (folder / INDEX).is_file():
            metadata = read_json(folder / INDEX).get('metadata')
            total = metadata.get('total_size') if isinstance(metadata, dict) else None
            if isinstance(total, (int, float)):
                require_memory(name, total)
        return pathlib.Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except GatedRepoError:
        raise CommandError(f'{name}: the hub asks for a login and an accepted licence') from None
    except (RepositoryNotFoundError, HFValidationError):
        raise CommandError(f'{name} is neither a folder here nor a model on the hub') from None
    except LocalEntryNotFoundError:
        raise CommandError(f'{name} is no folder here, and the hub cannot be reached; '
                           'give the path of a folder') from None
    except (HfHubHTTPError, OSError) as error:
        raise CommandError(f'{name} could not be fetched from the hub: {first_line(error)}') from None


def first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_json(path):
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise CommandError(f'cannot read {path}: {error.strerror}') from None
    except (ValueError, RecursionError) as error:
        raise CommandError(f'{path} is not JSON: {error}') from None
    if not isinstance(document, dict):
        raise CommandError(f'{path} is not a JSON object')
    return document


def read_config(folder):
    config = read_json(folder / 'config.json')
    if config.get('model_type') != MODEL_TYPE:
        raise CommandError(f'{folder} is not a Qwen3-VL: config.json has model_type '
                           f'{config.get("model_type")!r}, expected {MODEL_TYPE!r}')
    return config


def check_folder(folder, dtype):
    """Raises CommandError where `folder` is no Qwen3-VL, is damaged, lacks files or does not fit."""
    if not (folder / 'config.json').is_file():
        raise CommandError(f'{folder} lacks config.json: it is no model folder')
    read_config(folder)
    for names in NEEDED:
        if not any((folder / name).is_file() for name in names):
            raise CommandError(f'{folder} lacks {" or ".join(names)}')
    require_memory(folder, bytes_needed(folder, dtype))


def weight_files(folder):
    if not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    shards = read_json(folder / INDEX).get('weight_map')
    if not isinstance(shards, dict) or not shards:
        raise CommandError(f'{folder / INDEX} has no weight_map')
    for name in shards.values():
        if not isinstance(name, str) or not name or pathlib.PurePath(name).name != name:
            raise CommandError(f'{folder / INDEX}: weight_map names {name!r}, which is no file of its folder')
    return [folder / name for name in sorted(set(shards.values()))]


def open_weights(path):
    """The Source in a safetensors file."""
    try:
        source = files.open_file(path)
    except FileNotFoundError:
        raise CommandError(f'{path.parent} lacks {path.name}') from None
    except OSError as error:
        raise CommandError(f'cannot read {path}: {error.strerror}') from None
    except ValueError as error:
        raise CommandError(error) from None
    if source.kind != 'safetensors':
        raise CommandError(f'{path} is not a safetensors file')
    return source


def bytes_needed(folder, dtype):
    """What a run takes, from the headers: the weights, and the largest of them three times over.

    The weights are compressed one at a time; the tensor, what it is compressed to and what comes
    back are alive together. A tenth is added for activations.
    """
    numels = {}
    for path in weight_files(folder):
        with open_weights(path) as source:
            numels.update((name, math.prod(source.items[number].shape)) for name, number in source.names)
    if not numels:
        raise CommandError(f'{folder} has no weights')
    return int(1.1 * dtype.itemsize * (sum(numels.values()) + 3 * max(numels.values())))


def require_memory(name, needed):
    available = machine.available_memory()
    if needed > available:
        raise CommandError(f'{name} does not fit: it needs about {needed / 2**30:.1f} GiB, '
                           f'{available / 2**30:.1f} GiB are available')


class Weights:
    """The tensors of a folder that passed `check_folder`, read one at a time.

    Not mapped: the pages of a mapped file would count as memory of the process beside the tensors.
    """

    def __init__(self, folder, dtype):
        self.folder, self.dtype = folder, dtype
        sources = [open_weights(path) for path in weight_files(folder)]
        self.stored = {name: (source, number) for source in sources for name, number in source.names}

    def check(self, model):
        """Raises CommandError where the folder lacks a weight of `model` or has one of another shape or
        dtype than are read."""
        wanted = dict(model.named_parameters())  # a tied one once, by its first name
        missing = sorted(set(wanted) - set(self.stored))
        if missing:
            raise CommandError(f'{self.folder}: {len(missing)} weights are missing, the first {missing[0]}')
        for name, parameter in wanted.items():
            source, number = self.stored[name]
            item = source.items[number]
            if item.shape != tuple(parameter.shape):
                raise CommandError(f'{self.folder}: {name} has shape {list(item.shape)}, the model of its '
                                   f'config.json {list(parameter.shape)}')
            if item.dtype not in READ_DTYPES:
                raise CommandError(f'{self.folder}: {name} is of {item.dtype}; read are {", ".join(READ_DTYPES)}')

    def value_of(self, name, parameter):
        source, number = self.stored[name]
        try:
            return source.read(number).to(self.dtype)
        except OSError as error:
            raise CommandError(f'cannot read {source.path}: {error.strerror}') from None
        except ValueError as error:  # cut short since
            raise CommandError(error) from None


def load_processor(folder):
    from transformers import AutoProcessor
    try:
        return AutoProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever the damage leads to
        raise CommandError(f'{folder} could not be loaded: {first_line(error)}') from error


def load_config(folder):
    """(the model's configuration, its end tokens)."""
    from transformers import AutoConfig, GenerationConfig
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        ends = getattr(config.text_config, 'eos_token_id', None)
        if (folder / 'generation_config.json').is_file():
            ends = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    except Exception as error:
        raise CommandError(f'{folder} could not be loaded: {first_line(error)}') from error
    return config, {ends} if isinstance(ends, int) else set(ends or ())


def processor_inputs(processor, image, prompt):
    """The inputs of one photograph and a prompt, in the model's own chat form where it has one."""
    content = [{'type': 'image'}, {'type': 'text', 'text': prompt}]
    if processor.chat_template:
        text = processor.apply_chat_template([{'role': 'user', 'content': content}],
                                             add_generation_prompt=True, tokenize=False)
    else:
        marks = processor.vision_start_token, processor.image_token, processor.vision_end_token
        text = ''.join(marks) + prompt
    return dict(processor(text=[text], images=[image], return_tensors='pt'))
