# SPDX-License-Identifier: Apache-2.0
"""TorchScript's optimizations keep results and effects: nothing is dropped, merged or moved that
something else could see. What they are told to keep compressed stays compressed."""

import io

import pytest
import torch

from decoder_block import HeldLinear
from effect_programs import Effects, mixed
from script_programs import QuantizedLinear, alike

PASSES = {
    'inline': [torch._C._jit_pass_inline],
    'dce': [torch._C._jit_pass_inline, torch._C._jit_pass_dce],
    'cse': [torch._C._jit_pass_inline, torch._C._jit_pass_cse],
    'constant_propagation': [torch._C._jit_pass_inline, torch._C._jit_pass_constant_propagation],
    'all': [torch._C._jit_pass_inline, torch._C._jit_pass_constant_propagation,
            torch._C._jit_pass_constant_pooling, torch._C._jit_pass_peephole, torch._C._jit_pass_cse,
            torch._C._jit_pass_dce],
}


def with_passes(*passes):
    def transform(module):
        scripted = torch.jit.script(module)
        for run in passes:
            run(scripted.graph)
        return scripted
    return transform


def frozen(module, **options):
    return torch.jit.freeze(torch.jit.script(module), **options)


def frozen_and_optimised(module):
    scripted = frozen(module, optimize_numerics=False)
    torch.jit.run_frozen_optimizations(scripted)
    return scripted


def saved_and_loaded(scripted):
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    return torch.jit.load(file)


TRANSFORMS = {
    'scripted': torch.jit.script,
    **{name: with_passes(*passes) for name, passes in PASSES.items()},
    'frozen': frozen,
    'frozen_with_attributes': lambda m: frozen(m, preserved_attrs=['manager', 'cache', 'pool']),
    'run_frozen_optimizations': frozen_and_optimised,
    'optimize_for_inference': lambda m: torch.jit.optimize_for_inference(torch.jit.script(m)),
    'loaded': lambda m: saved_and_loaded(torch.jit.script(m)),
}


@pytest.mark.parametrize('name', TRANSFORMS)
def test_effects_take_place_once_and_in_order(name):
    x = torch.randn(16, 72)
    transformed, plain = TRANSFORMS[name](Effects().eval()), Effects()
    for _ in range(3):  # the profiling executor compiles again for the second run
        assert alike(transformed(x), plain(x))


def test_only_what_has_no_effect_is_dropped_or_merged():
    x = torch.randn(16, 72)
    scripted = with_passes(*PASSES['all'])(mixed)
    calls = {name: str(scripted.graph).count(f'qvlmem::{name}(')
             for name in ('lossless_encode', 'to_fp16', 'memory_stats', 'configure')}
    assert calls == {'lossless_encode': 0, 'to_fp16': 1, 'memory_stats': 2, 'configure': 2}
    assert torch.equal(scripted(x), mixed(x))


def file_bytes(scripted):
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    return len(file.getvalue())


def test_freezing_keeps_a_compressed_weight_compressed():
    weight = torch.randn(128, 256)
    scripted = torch.jit.script(HeldLinear(weight, 0.01).eval())
    x = torch.randn(5, 256)
    for transform in (torch.jit.freeze, torch.jit.optimize_for_inference):
        transformed = transform(scripted)
        assert 'qvlmem::decompress' in str(transformed.graph)
        assert file_bytes(transformed) < weight.nbytes / 2
        for _ in range(3):
            assert torch.allclose(transformed(x), scripted(x), rtol=1e-5, atol=1e-5)


def test_freezing_decodes_plain_tensors_unless_their_names_are_preserved():
    """As it does with any operator over constants."""
    weight = torch.randn(128, 256)
    module = QuantizedLinear(weight).eval()
    x = torch.randn(5, 256)
    folded = frozen(module)
    kept = frozen(module, preserved_attrs=['q', 'scale', 'zero_point'])
    assert 'qvlmem::dequantize' not in str(folded.graph)
    assert 'qvlmem::dequantize' in str(kept.graph)
    assert file_bytes(kept) < weight.nbytes / 2 < file_bytes(folded)
    assert torch.equal(folded(x), module(x)) and torch.equal(kept(x), module(x))


def test_a_frozen_module_shares_its_objects_with_the_one_it_came_from():
    module = Effects().eval()
    bare = frozen(module)
    with_attributes = frozen(module, preserved_attrs=['manager'])
    assert not hasattr(bare, 'manager')
    before = module.manager.get_compression_stats()['compression_attempts']
    bare.eval()(torch.randn(4, 4))
    after = with_attributes.manager.get_compression_stats()['compression_attempts']
    assert after > before
