# SPDX-License-Identifier: Apache-2.0
"""Trains a small Qwen3-VL to read pages of scanned digits, and writes it as a checkpoint folder.

The digits are scikit-learn's; every fifth is kept from training, and accuracy is that on pages of those. Small
pages come first. Takes about half an hour on two cores.
"""

import argparse
import copy
import json
import math
import pathlib
import sys
import time

import torch
from torch.nn import functional

import digit_reader
from qvlmem.models.digit_pages import DigitPages

OUTPUT = pathlib.Path(__file__).resolve().parents[2] / 'data' / 'digit_reader'
ENOUGH = 0.98  # held-out digits


def patches_of(images):
    """What Qwen2VLImageProcessor makes of gray uint8 pages [pages, height, width] of one size.

    Returns (pixel_values [pages * patches, 3 * 2 * 16 * 16], grid [pages, 3]); the patches in the order in
    which the merger takes them.
    """
    pages, height, width = images.shape
    merge, patch = digit_reader.MERGE, digit_reader.PATCH
    rows, columns = height // patch, width // patch
    x = images.float().div(255).sub(0.5).div(0.5)
    x = x.view(pages, rows // merge, merge, patch, columns // merge, merge, patch)
    x = x.permute(0, 1, 4, 2, 5, 3, 6).reshape(pages * rows * columns, 1, 1, patch, patch)
    x = x.expand(-1, 3, 2, -1, -1).reshape(pages * rows * columns, -1)
    return x, torch.tensor([[1, rows, columns]]).expand(pages, -1)


class Examples:
    """Batches of pages of one size with one kind of question, as the model's inputs."""

    def __init__(self, processor, config, held_out, seed):
        self.tokenizer = processor.tokenizer
        self.config = config
        self.source = DigitPages(held_out, seed)

    def tokens(self, text):
        return self.tokenizer(text, add_special_tokens=False)['input_ids']

    def batch(self, pages, size=None, row=None):
        """(inputs with the answer appended, its length in tokens, the tokens of the digits of each page).

        row: None asks for whole pages; else a row of each, a different one from page to page.
        """
        rows, columns = size or self.source.draw_size()
        drawn = self.source.draw(pages, rows, columns)
        start, end, image = (self.config.vision_start_token_id, self.config.vision_end_token_id,
                             self.config.image_token_id)
        head = [start] + [image] * (rows * columns) + [end]
        lines = []
        for page in range(pages):
            asked = None if row is None else (row + page) % rows
            prompt = head + self.tokens(f'{drawn.question(asked)} :')
            answer = self.tokens(drawn.answer(page, asked)) + [self.tokenizer.eos_token_id]
            lines.append(prompt + answer)
        ids = torch.tensor(lines)
        pixels, grid = patches_of(drawn.images)
        inputs = {'input_ids': ids, 'mm_token_type_ids': (ids == image).int(), 'pixel_values': pixels,
                'image_grid_thw': grid, 'attention_mask': torch.ones_like(ids)}
        return inputs, len(answer), drawn.digits.flatten(1) + self.tokens('0')[0]


def logits_of(model, inputs, length, seen):
    """What the model says at the `length` tokens of the answer, and at the `seen` image tokens."""
    hidden = model.model(**inputs, use_cache=False).last_hidden_state
    return model.lm_head(hidden[:, -length - 1:-1]), model.lm_head(hidden[:, 1:1 + seen])


@torch.no_grad()
def held_out_accuracy(model, examples, batches, pages=16):
    """Share of held-out digits named rightly, the tokens before each being the right ones."""
    model.eval()
    right = total = 0
    for index in range(batches):
        inputs, length, _ = examples.batch(pages, row=None if index % 2 else index)
        wanted = inputs['input_ids'][:, -length:]
        chosen = logits_of(model, inputs, length, 0)[0].argmax(-1)
        digits = (wanted >= examples.tokens('0')[0]) & (wanted <= examples.tokens('9')[0])
        right += int(((chosen == wanted) & digits).sum())
        total += int(digits.sum())
    model.train()
    return right / total


def cross_entropy(logits, tokens):
    return functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def learning_rate(progress, peak):
    warm = 0.02
    return peak * (progress / warm if progress < warm
                   else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm))))


def train(options):
    import transformers
    torch.manual_seed(options.seed)
    processor = digit_reader.new_processor()
    config = digit_reader.new_config(processor)
    model = transformers.Qwen3VLForConditionalGeneration(config).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{'params': decayed, 'weight_decay': 0.05},
                                   {'params': rest, 'weight_decay': 0}], betas=(0.9, 0.98))
    examples = Examples(processor, config, held_out=False, seed=options.seed)
    checks = Examples(processor, config, held_out=True, seed=options.seed + 1)
    began, mean, mean_seeing, steps = time.monotonic(), None, None, options.steps
    for step in range(steps):
        progress = step / steps
        # Small pages first: where to look next is learned on them, and larger ones only stretch it.
        limit = min(1, 0.1 + progress / 0.4)
        while True:
            size = examples.source.draw_size()
            if size[0] * size[1] <= 6 + limit * 42:
                break
        pages = max(8, options.digits // (size[0] * size[1]))
        inputs, length, seen = examples.batch(pages, size, row=None if step % 3 else step)
        said, saw = logits_of(model, inputs, length, seen.shape[1])
        # Each image token is to name its own digit too: so the tower learns to see before the language model
        # has learned where to look, which takes many times as long the other way round.
        loss = cross_entropy(said, inputs['input_ids'][:, -length:])
        seeing = cross_entropy(saw, seen)
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(progress, options.learning_rate)
        optimizer.zero_grad(set_to_none=True)
        (loss + 0.3 * seeing).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean, mean_seeing = [new.item() if old is None else 0.98 * old + 0.02 * new.item()
                             for old, new in ((mean, loss), (mean_seeing, seeing))]
        if step % 100 == 99:
            accuracy = held_out_accuracy(model, checks, 4)
            print(f'step {step + 1} of {steps}, {time.monotonic() - began:.0f} s, loss {mean:.4f}, seeing {mean_seeing:.4f}, '
                  f'held-out digits {100 * accuracy:.1f} %', flush=True)
        if step % 500 == 499:
            save(model, processor, options.output)
    save(model, processor, options.output)
    return model.to(torch.bfloat16), checks


def save(model, processor, folder):
    half = copy.deepcopy(model).to(torch.bfloat16).eval()
    half.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    half.generation_config.pad_token_id = processor.tokenizer.eos_token_id
    half.save_pretrained(folder)
    processor.save_pretrained(folder)


def main():
    parser = argparse.ArgumentParser(prog='tools/train', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', metavar='FOLDER', type=pathlib.Path, default=OUTPUT,
                        help='the folder to write (default: data/digit_reader)')
    parser.add_argument('--steps', metavar='N', type=int, default=6000, help='default: 6000')
    parser.add_argument('--digits', metavar='N', type=int, default=384, help='digits in a batch (default: 384)')
    parser.add_argument('--learning-rate', metavar='RATE', type=float, default=1.5e-3,
                        help='the largest (default: 0.0015)')
    parser.add_argument('--seed', metavar='N', type=int, default=0, help='default: 0')
    options = parser.parse_args()
    target = options.output
    options.output = target.with_name(f'{target.name}.partial')
    model, checks = train(options)
    accuracy = held_out_accuracy(model, checks, 64)
    print(json.dumps({'held_out_accuracy': accuracy, 'parameters': model.num_parameters()}))
    if accuracy < ENOUGH:
        print(f'{options.output} stays: fewer than {100 * ENOUGH:g} % of held-out digits', file=sys.stderr)
        return 1
    target.mkdir(parents=True, exist_ok=True)
    for path in options.output.iterdir():
        path.replace(target / path.name)
    options.output.rmdir()
    return 0


if __name__ == '__main__':
    sys.exit(main())
