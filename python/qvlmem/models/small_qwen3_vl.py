# SPDX-License-Identifier: Apache-2.0
"""A small Qwen3-VL with all the parts of a large one and seeded weights, for where no checkpoint is.

The sizes are those of the real models divided, with their awkward tails: vision heads of 72, a
vision feed-forward layer of 538 (= 4304 / 8), text heads of 128 of which two serve four queries.
"""

import math

import torch
from transformers import Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLForConditionalGeneration

VOCABULARY = 4096
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = range(VOCABULARY - 4, VOCABULARY)
PATCH, MERGE = 16, 2
# Random heads attend to every position alike, and the mean that they add would drown the token
# itself: greedy decoding would repeat one token for ever.
GAIN = {'o_proj': 0.3, 'down_proj': 2.0}


def small_config(tied=True):
    """`tied`: the output layer is the embedding, as in Qwen3-VL-2B and 4B."""
    return Qwen3VLConfig(
        vision_config={
            'depth': 8,
            'hidden_size': 144,
            'num_heads': 2,
            'intermediate_size': 538,
            'out_hidden_size': 256,
            'patch_size': PATCH,
            'spatial_merge_size': MERGE,
            'num_position_embeddings': 1024,
            'deepstack_visual_indexes': [1, 3, 5],
        },
        text_config={
            'vocab_size': VOCABULARY,
            'hidden_size': 256,
            'intermediate_size': 800,
            'num_hidden_layers': 6,
            'num_attention_heads': 4,
            'num_key_value_heads': 2,
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
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        image_token_id=IMAGE_PAD,
        video_token_id=VIDEO_PAD,
        tie_word_embeddings=tied)


@torch.no_grad()
def small_model(seed=0, dtype=torch.bfloat16, tied=True):
    """The same weights for the same seed, on any machine."""
    model = Qwen3VLForConditionalGeneration(small_config(tied)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            # Signals keep their size from layer to layer.
            value = noise * (GAIN.get(name.split('.')[-2], 1) / math.sqrt(parameter[0].numel()))
        elif 'norm' in name and name.endswith('weight'):
            value = 1 + 0.1 * noise
        else:
            value = 0.02 * noise
        # Not model.to(dtype): the rotary frequencies stay float32, as from_pretrained leaves them.
        parameter.data = value.to(dtype)
    # Logits that spread as a trained model's do: next-token distributions with a few likely tokens.
    model.model.language_model.norm.weight.mul_(4)
    return model


def small_inputs(image, seed=0, text_tokens=24):
    """What a processor makes of one photograph and a prompt; the prompt is seeded token ids."""
    processor = Qwen2VLImageProcessor(
        patch_size=PATCH, merge_size=MERGE, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        size={'shortest_edge': 256**2, 'longest_edge': 1024**2})
    inputs = processor(images=[image], return_tensors='pt')
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(VISION_START, (text_tokens,), generator=generator).tolist()
    pads = int(inputs['image_grid_thw'].prod()) // MERGE**2
    before, after = text[:text_tokens // 3], text[text_tokens // 3:]
    ids = torch.tensor([before + [VISION_START] + [IMAGE_PAD] * pads + [VISION_END] + after])
    return {
        'input_ids': ids,
        'mm_token_type_ids': (ids == IMAGE_PAD).int(),
        'pixel_values': inputs['pixel_values'],
        'image_grid_thw': inputs['image_grid_thw'],
    }
