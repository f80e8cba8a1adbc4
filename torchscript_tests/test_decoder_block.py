# SPDX-License-Identifier: Apache-2.0
"""The plain decoder block is transformers' Qwen3-VL text layer; scripted, frozen, compiled and with
compression inside it stays what it is. (decoder_test.cpp runs the same without Python.)"""

import pytest
import torch

import decoder_block as blocks

SHAPES = {'odd': blocks.ODD, 'real': blocks.REAL}
DTYPES = (torch.float32, torch.bfloat16)
LENGTHS = ([31, 1, 1, 1], [1, 1, 1])


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums may depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def transformers_layer(sizes, dtype, block):
    """(transformers' decoder layer with the weights of the block, its rotary embedding)"""
    qwen = pytest.importorskip('transformers.models.qwen3_vl.modeling_qwen3_vl',
                               reason='needs a transformers that has Qwen3-VL')
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
    config = Qwen3VLTextConfig(
        hidden_size=sizes.hidden, intermediate_size=sizes.intermediate, num_hidden_layers=1,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.key_value_heads,
        head_dim=sizes.head_dim, rms_norm_eps=1e-6, attention_bias=False,
        rope_parameters={'rope_type': 'default', 'rope_theta': sizes.theta,
                         'mrope_section': list(sizes.sections), 'mrope_interleaved': True})
    config._attn_implementation = 'eager'
    layer = qwen.Qwen3VLTextDecoderLayer(config, layer_idx=0).to(dtype).eval()
    layer.load_state_dict(block.state_dict())
    return layer, qwen.Qwen3VLTextRotaryEmbedding(config)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('length', [1, 31])
def test_the_plain_block_is_transformers_own(shape, dtype, length):
    sizes = SHAPES[shape]
    decoder = blocks.plain(sizes, dtype)
    layer, rotary = transformers_layer(sizes, dtype, decoder.first)
    x, positions = blocks.steps(sizes, dtype, [length], batch=2)[0]
    cos, sin = rotary(x, positions)
    hidden = torch.full((length, length), torch.finfo(dtype).min, dtype=dtype).triu(1)
    want = layer(hidden_states=x, position_embeddings=(cos, sin),
                 attention_mask=hidden.expand(2, 1, length, length))
    got = decoder.first(x, *decoder.rotary(positions))
    # The same operations on the same values; how a product sums up may differ with its layout.
    assert blocks.relative_error(want, got) <= 4 * torch.finfo(dtype).eps
    # Heights and widths count: text positions in their place change the output.
    other = decoder.first(x, *decoder.rotary(positions[:1].expand_as(positions)))
    assert length == 1 or blocks.relative_error(got, other) > 0.01


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('shape', SHAPES)
def test_steps_one_by_one_give_what_all_at_once_give(shape, dtype):
    sizes = SHAPES[shape]
    decoder = blocks.plain(sizes, dtype)
    inputs = blocks.steps(sizes, dtype, [31, 1, 1, 3, 1])
    whole = [(torch.cat([x for x, _ in inputs], 1), torch.cat([p for _, p in inputs], 2))]
    want = blocks.run(blocks.fresh(decoder), whole)
    got = blocks.run(blocks.fresh(decoder), inputs)
    assert blocks.relative_error(want, got) <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('lengths', LENGTHS, ids=['long', 'short'])
@pytest.mark.parametrize('max_error', [0.0, 0.01])
def test_scripted_and_frozen_it_computes_what_eager_mode_does(shape, dtype, lengths, max_error):
    sizes = SHAPES[shape]
    decoder = blocks.plain(sizes, dtype)
    inputs = blocks.steps(sizes, dtype, lengths)
    want = blocks.run(blocks.compressed(decoder, sizes, max_error), inputs)
    plain = blocks.run(blocks.fresh(decoder), inputs)
    assert torch.equal(plain, want) == (max_error == 0)
    scripted = torch.jit.script(blocks.compressed(decoder, sizes, max_error))
    frozen = torch.jit.freeze(torch.jit.script(blocks.compressed(decoder, sizes, max_error)),
                              preserved_attrs=['restart'])
    for module in (scripted, frozen):
        for _ in range(2):
            assert torch.equal(blocks.run(module, inputs), want)
            module.restart()


def test_compiled_it_breaks_the_graph_and_computes_the_same():
    decoder = blocks.plain(blocks.ODD, torch.float32)
    inputs = blocks.steps(blocks.ODD, torch.float32, [5, 1, 1])
    want = blocks.run(blocks.fresh(decoder), inputs)
    torch._dynamo.reset()
    held = blocks.compressed(decoder, blocks.ODD, 0.0)
    compiled = torch.compile(held, backend='aot_eager')
    assert blocks.relative_error(want, blocks.run(compiled, inputs)) <= 1e-6
    assert held.cache.stats()['compression_attempts'] == 4 * len(inputs)
