# SPDX-License-Identifier: Apache-2.0
"""A Qwen3-VL small enough to train on two cores, its tokenizer and its processor."""

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

PATCH, MERGE = 16, 2
MARKS = ['<|endoftext|>', '<|vision_start|>', '<|vision_end|>', '<|image_pad|>', '<|video_pad|>']
WORDS = ['<unk>', *'0123456789', '/', '.', ':', 'read', 'the', 'page', 'row']
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} :{% endif %}")


def new_processor():
    """One token a word or digit; an image keeps its size, rounded to merged patches."""
    vocabulary = {token: index for index, token in enumerate(MARKS + WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token='<unk>', eos_token=MARKS[0], pad_token=MARKS[0],
        additional_special_tokens=MARKS[1:])
    size = {'shortest_edge': 2 * 3 * 32**2, 'longest_edge': 12 * 16 * 32**2}
    options = dict(patch_size=PATCH, merge_size=MERGE, image_mean=[0.5] * 3, image_std=[0.5] * 3, size=size)
    return transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**options), tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(**options), chat_template=CHAT_TEMPLATE)


def new_config(processor):
    ids = processor.tokenizer.convert_tokens_to_ids
    return transformers.Qwen3VLConfig(
        vision_config={
            'depth': 4,
            'hidden_size': 96,
            'num_heads': 3,
            'intermediate_size': 288,
            'out_hidden_size': 192,
            'patch_size': PATCH,
            'spatial_merge_size': MERGE,
            'num_position_embeddings': 256,
            'deepstack_visual_indexes': [0, 1, 2],
        },
        text_config={
            'vocab_size': len(MARKS) + len(WORDS),
            'hidden_size': 192,
            'intermediate_size': 512,
            'num_hidden_layers': 4,
            'num_attention_heads': 6,
            'num_key_value_heads': 2,
            'head_dim': 32,
            'max_position_embeddings': 4096,
            'tie_word_embeddings': True,
            'eos_token_id': ids(MARKS[0]),
            'pad_token_id': ids(MARKS[0]),
            'bos_token_id': None,
            'rope_parameters': {
                'rope_type': 'default',
                'rope_theta': 1e4,
                'mrope_section': [6, 5, 5],
                'mrope_interleaved': True,
            },
        },
        vision_start_token_id=ids('<|vision_start|>'),
        vision_end_token_id=ids('<|vision_end|>'),
        image_token_id=ids('<|image_pad|>'),
        video_token_id=ids('<|video_pad|>'),
        tie_word_embeddings=True)
