# SPDX-License-Identifier: Apache-2.0
"""The frames in data/golden decode to the same bits for ever (svd: within its error); tools/golden made them."""

import importlib.machinery
import importlib.util
import json
import pathlib

import pytest
import torch

import qvlmem

pytestmark = pytest.mark.each_device

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFEST = json.loads((ROOT / 'data' / 'golden' / 'manifest.json').read_text())


def load_golden():
    loader = importlib.machinery.SourceFileLoader('golden', str(ROOT / 'tools' / 'golden'))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('golden', loader))
    loader.exec_module(module)
    return module


golden = load_golden()


def frame(name):
    data = bytearray((ROOT / 'data' / 'golden' / name).read_bytes())
    return torch.frombuffer(data, dtype=torch.uint8)


def test_every_method_has_one():
    assert {entry['method'] for entry in MANIFEST.values()} == {
        'none', 'lossless', 'fp16', 'int8', 'int4', 'bounded', 'svd', 'sparse'}


@pytest.mark.parametrize('name', sorted(MANIFEST))
def test_it_decodes_to_the_same_bits(ops, name):
    entry = MANIFEST[name]
    compressed = ops.unpack(frame(name))
    decoded = ops.decompress(compressed)
    assert compressed.method() == entry['method']
    assert list(decoded.shape) == entry['shape'] and str(decoded.dtype) == f'torch.{entry["dtype"]}'
    if entry['method'] == 'svd':  # a product of matrices: its sums may be taken in another order
        original = golden.example(decoded.dtype, entry['shape']).double()
        error = (decoded.double() - original).norm() / original.norm()
        assert error <= compressed.relative_error() * 1.001 + 1e-6
    else:
        assert golden.digest(decoded) == entry['decoded_sha256']
    assert ops.pack(compressed).equal(frame(name))


# lossless chooses how to code from a sample, which later versions may take otherwise.
@pytest.mark.parametrize('name', [name for name in sorted(MANIFEST)
                                  if MANIFEST[name]['method'] not in ('svd', 'lossless')
                                  and name.rpartition('_')[0] not in golden.FORMER])
def test_the_same_values_give_the_same_frame(ops, name):
    entry = MANIFEST[name]
    method, shape, options = golden.recipe(name)
    original = golden.example(getattr(torch, entry['dtype']), shape)
    compressed = ops.compress(original, method, **options)
    assert ops.pack(compressed).equal(frame(name))


def test_the_file_of_frames_loads_to_the_same_values():
    loaded, expected = qvlmem.load(golden.STATE_DICT), golden.state_dict()
    assert list(loaded) == list(expected)
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert loaded[name].shape == value.shape and loaded[name].dtype == value.dtype
            assert golden.digest(loaded[name]) == golden.digest(value)
        else:
            assert qvlmem.pack(loaded[name]).equal(qvlmem.pack(value))
    assert loaded['head.weight'].data_ptr() == loaded['embedding.weight'].data_ptr()


def test_the_same_state_dict_gives_the_same_file(tmp_path):
    path = tmp_path / 'again.qvlm'
    qvlmem.save(golden.state_dict(), path, method='none')
    assert path.read_bytes() == golden.STATE_DICT.read_bytes()
