#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hidden states, keys and values of a language model over English prose, as bfloat16: what the codecs are measured on.

usage: model_activations.py MODEL.gguf FILE.safetensors

MODEL is a Llama with a byte-level BPE, such as SmolLM2-135M; the prose is that of Python's own reference, which every
Python has. Writes hidden_states [layers + 1, tokens, hidden size] and key_values [layers, 2, heads, tokens, head
size], as a cache of transformers has them. Computes in float32. Needs transformers and gguf.
"""

import os
import sys
from pydoc_data.topics import topics

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, logging

# GGUF's names of what a block has, and transformers'.
NAMES = {'token_embd': 'model.embed_tokens', 'output_norm': 'model.norm', 'attn_norm': 'input_layernorm',
         'ffn_norm': 'post_attention_layernorm', 'attn_q': 'self_attn.q_proj', 'attn_k': 'self_attn.k_proj',
         'attn_v': 'self_attn.v_proj', 'attn_output': 'self_attn.o_proj', 'ffn_gate': 'mlp.gate_proj',
         'ffn_up': 'mlp.up_proj', 'ffn_down': 'mlp.down_proj'}
# A language model that was read as it was written is far below this on prose; one with a wrong weight far above.
LOSS_AT_MOST = 3.5  # nats a token
TOKENS = 2048


def name_of(name):
    *block, part, suffix = name.split('.')
    return '.'.join((['model.layers', block[1]] if block else []) + [NAMES[part], suffix])


def halves_together(weight, heads):
    """The rows of each head as transformers has them: GGUF has the two of each rotated pair side by side."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def read_model(reader, field):
    config = LlamaConfig(
        vocab_size=len(field('tokenizer.ggml.tokens')), hidden_size=field('llama.embedding_length'),
        intermediate_size=field('llama.feed_forward_length'), num_hidden_layers=field('llama.block_count'),
        num_attention_heads=field('llama.attention.head_count'),
        num_key_value_heads=field('llama.attention.head_count_kv'),
        rms_norm_eps=field('llama.attention.layer_norm_rms_epsilon'), rope_theta=field('llama.rope.freq_base'),
        max_position_embeddings=field('llama.context_length'), tie_word_embeddings=True)
    state = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        if '.attn_q.' in tensor.name:
            weight = halves_together(weight, config.num_attention_heads)
        elif '.attn_k.' in tensor.name:
            weight = halves_together(weight, config.num_key_value_heads)
        state[name_of(tensor.name)] = weight
    state['lm_head.weight'] = state['model.embed_tokens.weight']
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(state)
    return model


def read_tokenizer(field):
    vocabulary = {token: index for index, token in enumerate(field('tokenizer.ggml.tokens'))}
    merges = [tuple(merge.split(' ')) for merge in field('tokenizer.ggml.merges')]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@torch.inference_mode()
def activations(path):
    reader = gguf.GGUFReader(path)

    def field(name):
        return reader.fields[name].contents()

    prose = '\n\n'.join(topics[name] for name in sorted(topics))
    tokens = torch.tensor([read_tokenizer(field).encode(prose).ids[:TOKENS]])
    output = read_model(reader, field)(tokens, labels=tokens, output_hidden_states=True, use_cache=True)
    if not output.loss <= LOSS_AT_MOST:
        sys.exit(f'{path}: {output.loss:.2f} nats a token on English prose; expected at most {LOSS_AT_MOST}')
    layers = output.past_key_values.layers
    return {'hidden_states': torch.cat(output.hidden_states).bfloat16(),
            'key_values': torch.stack([torch.cat([layer.keys, layer.values]) for layer in layers]).bfloat16(),
            }, output.loss


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    logging.set_verbosity_error()
    tensors, loss = activations(sys.argv[1])
    unfinished = f'{sys.argv[2]}.unfinished'
    save_file(tensors, unfinished, {'nats_a_token': f'{loss:.3f}'})
    os.replace(unfinished, sys.argv[2])


if __name__ == '__main__':
    main()
