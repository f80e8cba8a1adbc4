# SPDX-License-Identifier: Apache-2.0
"""Qwen3-VL by its sizes, with seeded weights: for figures on memory and time where no checkpoint is."""

import math
import zlib

import torch
from transformers import Qwen2VLImageProcessor, Qwen3VLConfig

VISION_MARKS = ('vision_start_token_id', 'vision_end_token_id', 'image_token_id', 'video_token_id')
PATCH, MERGE = 16, 2
# Random heads attend to every position alike, and the mean that they add would drown the token
# itself: greedy decoding would repeat one token for ever.
GAIN = {'o_proj': 0.3, 'down_proj': 2.0}
# Logits that spread as a trained model's do: next-token distributions with a few likely tokens.
FINAL_NORM, FINAL_NORM_GAIN = 'model.language_model.norm.weight', 4

# '2b' is Qwen3-VL-2B. 'small' has its parts with the sizes divided and the awkward tails of the family: vision
# heads of 72, a vision feed-forward layer of 538 (= 4304 / 8), text heads of 128 of which two serve four queries.
SHAPES = {
    'small': dict(
        vision=dict(depth=8, hidden_size=144, num_heads=2, intermediate_size=538, out_hidden_size=256,
                    num_position_embeddings=1024, deepstack_visual_indexes=[1, 3, 5]),
        text=dict(vocab_size=4096, hidden_size=256, intermediate_size=800, num_hidden_layers=6,
                  num_attention_heads=4, num_key_value_heads=2)),
    '2b': dict(
        vision=dict(depth=24, hidden_size=1024, num_heads=16, intermediate_size=4096, out_hidden_size=2048,
                    num_position_embeddings=2304, deepstack_visual_indexes=[5, 11, 17]),
        text=dict(vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=28,
                  num_attention_heads=16, num_key_value_heads=8)),
}


def shape_config(shape, tied=True):
    """`tied`: the output layer is the embedding, as in Qwen3-VL-2B and 4B."""
    sizes = SHAPES[shape]
    vocabulary = sizes['text']['vocab_size']
    return Qwen3VLConfig(
        vision_config={**sizes['vision'], 'patch_size': PATCH, 'spatial_merge_size': MERGE},
        text_config={
            **sizes['text'],
            'head_dim': 128,
            'max_position_embeddings': 32768,
            'tie_word_embeddings': tied,
            'rope_parameters': {
                'rope_type': 'default',
                'rope_theta': 5e6,
                'mrope_section': [24, 20, 20],
                'mrope_interleaved': True,
            },
        },
        tie_word_embeddings=tied,
        **dict(zip(VISION_MARKS, range(vocabulary - len(VISION_MARKS), vocabulary))))


def seeded_weight(name, shape, dtype, seed=0):
    """The value of one parameter, always the same for the same name and seed."""
    generator = torch.Generator().manual_seed(zlib.crc32(f'{seed} {name}'.encode()))
    mean, deviation = 0.0, 0.02
    if len(shape) > 1:
        # Signals keep their size from layer to layer.
        deviation = GAIN.get(name.split('.')[-2], 1) / math.sqrt(math.prod(shape[1:]))
    elif 'norm' in name and name.endswith('weight'):
        mean, deviation = 1.0, 0.1
    # Drawn in its own dtype: float32 would take twice the memory of the largest weight.
    value = torch.empty(shape, dtype=dtype).normal_(mean, deviation, generator=generator)
    return value.mul_(FINAL_NORM_GAIN) if name == FINAL_NORM else value


def seeded_inputs(config, image, seed=0, text_tokens=24):
    """What a processor makes of one photograph and a prompt; the prompt is seeded token ids."""
    processor = Qwen2VLImageProcessor(
        patch_size=PATCH, merge_size=MERGE, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        size={'shortest_edge': 256**2, 'longest_edge': 1024**2})
    inputs = processor(images=[image], return_tensors='pt')
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(config.vision_start_token_id, (text_tokens,), generator=generator).tolist()
    pads = int(inputs['image_grid_thw'].prod()) // MERGE**2
    before, after = text[:text_tokens // 3], text[text_tokens // 3:]
    ids = torch.tensor([[*before, config.vision_start_token_id, *[config.image_token_id] * pads,
                         config.vision_end_token_id, *after]])
    return {
        'input_ids': ids,
        'mm_token_type_ids': (ids == config.image_token_id).int(),
        'pixel_values': inputs['pixel_values'],
        'image_grid_thw': inputs['image_grid_thw'],
    }
