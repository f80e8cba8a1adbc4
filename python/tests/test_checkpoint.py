# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in a folder: run from end to end, and refused where something is wrong with them."""

import json
import shutil
import struct

import pytest
import torch

from qvlmem.__main__ import main
from qvlmem.commands import CommandError
from qvlmem.models import checkpoint, machine

transformers = pytest.importorskip('transformers')
pytest.importorskip('torchvision')

from qvlmem.models import shapes, sides, skeleton  # noqa: E402

MARKS = {'vision_start_token_id': '<|vision_start|>', 'vision_end_token_id': '<|vision_end|>',
         'image_token_id': '<|image_pad|>', 'video_token_id': '<|video_pad|>'}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Imports of transformers take seconds; that processes are fresh is tested with `run`."""
    monkeypatch.setattr(sides, 'in_fresh_process', lambda function, *arguments: function(*arguments))


def small_model(config):
    return skeleton.fill(skeleton.new_skeleton(config, torch.bfloat16),
                         lambda name, parameter: shapes.seeded_weight(name, parameter.shape, torch.bfloat16))


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """The small model with a tokenizer of single letters, saved as checkpoints are."""
    folder = tmp_path_factory.mktemp('checkpoint')
    letters = {chr(code): code - 33 for code in range(33, 127)}
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=letters, merges=[], unk_token='!', additional_special_tokens=list(MARKS.values()))
    model = small_model(shapes.shape_config('small'))
    for name, mark in MARKS.items():
        setattr(model.config, name, tokenizer.convert_tokens_to_ids(mark))
    transformers.logging.disable_progress_bar()
    model.save_pretrained(folder)
    transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=16, merge_size=2),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor()).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage; the weights are a link, since most tests leave them alone."""
    copy = tmp_path / 'model'
    copy.mkdir()
    for path in saved.iterdir():
        if path.suffix == '.json':
            shutil.copy(path, copy)
        else:
            (copy / path.name).symlink_to(path)
    return copy


def refused(folder, capsys):
    """What `run --model` prints for it."""
    assert main(['run', '--model', str(folder), '--json']) == 1
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.count('\n') == 1
    return printed.err.removeprefix('qvlmem run: error: ').strip()


def test_a_checkpoint_runs_and_answers_in_text(folder, capsys):
    assert main(['run', '--model', str(folder), '--json', '--tokens', '2', '--prompt', 'What?',
                 '--max-error', '0']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['model']['name'] == str(folder) and not report['model']['seeded']
    question, = report['questions']
    assert question['prompt'] == 'What?' and isinstance(question['plain']['text'], str)
    assert question['plain'] == question['held']
    names = [entry['name'] for entry in report['tensors'] if entry['kind'] == 'weights']
    assert 'lm_head.weight' not in names and len(names) == len(set(names))


def loaded(folder, dtype=torch.bfloat16):
    weights = checkpoint.Weights(folder, dtype)
    model = skeleton.new_skeleton(checkpoint.load_config(folder)[0], dtype)
    weights.check(model)
    return skeleton.fill(model, weights.value_of)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_weights_arrive_as_transformers_loads_them(saved, dtype):
    model = loaded(saved, dtype)
    expected = transformers.Qwen3VLForConditionalGeneration.from_pretrained(saved, dtype=dtype)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    theirs = expected.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())
    buffers = dict(expected.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert model.dtype == expected.dtype


def test_a_folder_that_is_missing(tmp_path, capsys):
    assert refused(tmp_path / 'no such', capsys) == f'there is no folder {tmp_path / "no such"}'


def test_a_file_is_no_model(folder, capsys):
    assert 'is a file' in refused(folder / 'config.json', capsys)


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'processor_config.json',
                                  'tokenizer.json', 'tokenizer_config.json'])
def test_a_folder_that_lacks_a_file(folder, name, capsys):
    (folder / name).unlink()
    said = refused(folder, capsys)
    assert said.startswith(f'{folder} lacks') and name in said


@pytest.mark.parametrize('text, reason', [
    ('{"model_type": "llama"}', "model_type 'llama', expected 'qwen3_vl'"),
    ('{}', 'model_type None'), ('not json', 'is not JSON'), ('[]', 'is not a JSON object')])
def test_a_config_of_something_else(folder, text, reason, capsys):
    (folder / 'config.json').write_text(text)
    assert reason in refused(folder, capsys)


def write_weights(folder, content):
    (folder / 'model.safetensors').unlink()
    (folder / 'model.safetensors').write_bytes(content)


@pytest.mark.parametrize('content, reason', [
    (b'', 'not a safetensors file'), (b'short', 'not a safetensors file'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'not a safetensors file'),
    (struct.pack('<Q', 5) + b'{"a":', 'damaged header'),
    (struct.pack('<Q', 7) + b'{"a":1}', 'damaged header'),
    (struct.pack('<Q', 2) + b'{}', 'has no weights')])
def test_a_weight_file_that_is_none(folder, content, reason, capsys):
    write_weights(folder, content)
    assert reason in refused(folder, capsys)


def test_a_weight_file_that_is_cut_short(saved, folder, capsys):
    content = (saved / 'model.safetensors').read_bytes()
    write_weights(folder, content[:-1])
    assert f'is cut short: {len(content) - 1} bytes of {len(content)}' in refused(folder, capsys)


def test_weights_that_are_missing(folder, capsys):
    from safetensors.torch import load_file, save_file
    weights = load_file(folder / 'model.safetensors')
    del weights['model.visual.merger.linear_fc2.weight']
    (folder / 'model.safetensors').unlink()
    save_file(weights, folder / 'model.safetensors', {'format': 'pt'})
    assert '1 weights are missing, the first model.visual.merger' in refused(folder, capsys)


def test_a_weight_of_another_shape_or_of_integers(folder, capsys):
    from safetensors.torch import load_file, save_file
    name = 'model.visual.merger.linear_fc2.weight'
    weights = load_file(folder / 'model.safetensors')
    for value, said in ((torch.zeros(3, 5), 'has shape [3, 5], the model of'), (weights[name].char(), 'is of int8')):
        (folder / 'model.safetensors').unlink()
        save_file(weights | {name: value}, folder / 'model.safetensors', {'format': 'pt'})
        assert f'{name} {said}' in refused(folder, capsys)


@pytest.mark.parametrize('entry', [
    {'dtype': 'I65', 'shape': [2], 'data_offsets': [0, 16]}, {'dtype': 'BF16', 'shape': [2], 'data_offsets': [0, 6]},
    {'dtype': 'BF16', 'shape': [2], 'data_offsets': [4, 0]}, {'dtype': 'BF16', 'shape': [2], 'data_offsets': [-4, 0]},
    {'dtype': 'BF16', 'shape': [2]}, {'shape': [2], 'data_offsets': [0, 4]}, 7])
def test_a_header_that_contradicts_itself(folder, entry, capsys):
    header = json.dumps({'a': entry}).encode()
    write_weights(folder, struct.pack('<Q', len(header)) + header + bytes(16))
    assert 'has a damaged header' in refused(folder, capsys)


def test_an_index_that_names_a_missing_shard(folder, capsys):
    (folder / 'model.safetensors').unlink()
    index = folder / 'model.safetensors.index.json'
    index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert refused(folder, capsys) == f'{folder} lacks model-00001-of-00002.safetensors'
    index.write_text('{}')
    assert 'has no weight_map' in refused(folder, capsys)


@pytest.mark.parametrize('name', ['../model.safetensors', '/tmp/model.safetensors', 5, ['a'], ''])
def test_an_index_that_leads_out_of_the_folder(folder, name, capsys):
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': {'a': name}}))
    assert f'weight_map names {name!r}' in refused(folder, capsys)


def test_a_chat_template_that_fails(folder, capsys):
    (folder / 'chat_template.jinja').write_text("{{ raise_exception('no') }}")
    assert 'the processor cannot take it' in refused(folder, capsys)


def test_numbers_that_are_none_are_null_in_json(saved, folder, capsys):
    from safetensors.torch import load_file, save_file
    weights = load_file(saved / 'model.safetensors')
    weights['model.language_model.norm.weight'].fill_(float('nan'))
    (folder / 'model.safetensors').unlink()
    save_file(weights, folder / 'model.safetensors', {'format': 'pt'})
    assert main(['run', '--model', str(folder), '--json', '--tokens', '1']) == 0
    assert json.loads(capsys.readouterr().out)['changed']['mean_kl_nats'] is None


def test_a_model_that_does_not_fit(folder, capsys, monkeypatch):
    monkeypatch.setattr(machine, 'available_memory', lambda: 16 << 20)
    said = refused(folder, capsys)
    assert said.startswith(f'{folder} does not fit: it needs about ')


def test_bytes_needed_follow_the_dtype(saved):
    half, full = (checkpoint.bytes_needed(saved, dtype) for dtype in (torch.bfloat16, torch.float32))
    assert full == pytest.approx(2 * half, abs=2)
    assert half > (saved / 'model.safetensors').stat().st_size


def test_a_name_without_a_network(capsys, monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    said = refused('nobody/no-such-model', capsys)
    assert said.startswith('nobody/no-such-model is no folder here, and the hub cannot be reached')


def test_available_memory_takes_the_smaller_limit(tmp_path):
    (tmp_path / 'meminfo').write_text('MemTotal: 9000 kB\nMemAvailable:    8000 kB\n')
    assert machine.available_memory(tmp_path, tmp_path) == 8000 << 10
    (tmp_path / 'memory.max').write_text('6000000\n')
    (tmp_path / 'memory.current').write_text('3000000\n')
    (tmp_path / 'memory.stat').write_text('anon 2000000\nfile 1000000\n')
    assert machine.available_memory(tmp_path, tmp_path) == 4000000
    (tmp_path / 'memory.max').write_text('max\n')
    assert machine.available_memory(tmp_path, tmp_path) == 8000 << 10


def test_find_checkpoint_takes_a_folder_before_a_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    name = f'{folder.parent.name}/{folder.name}'
    assert checkpoint.find_checkpoint(name).samefile(folder)
    with pytest.raises(CommandError, match='there is no folder'):
        checkpoint.find_checkpoint('no-slash')
