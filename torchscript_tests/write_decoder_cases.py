#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes scripted decoders with compression inside, and what eager PyTorch computes, for decoder_test.cpp.

For each case FOLDER/NAME.pt, a TorchScript module, and FOLDER/NAME.expected: a dictionary of the inputs
of each step, the outputs of all steps of the plain decoder and of the compressed one, both eager, and
the largest relative error that the two may have between them.
"""

import argparse
import pathlib
import warnings

import torch

import decoder_block as blocks

# Of the same size as what compression takes away, at every place where it does, noise leaves the output
# with nearly the same error. Three draws, and half as much again for the luck of one.
DRAWS = 3
ROOM = 1.5


def write_case(folder, name, sizes, dtype, max_error, lengths, batch):
    plain = blocks.plain(sizes, dtype)
    inputs = blocks.steps(sizes, dtype, lengths, batch)
    expected = blocks.run(blocks.fresh(plain), inputs)
    held = blocks.compressed(plain, sizes, max_error)
    errors = [blocks.relative_error(expected, blocks.run(blocks.noisy(plain, max_error, seed), inputs))
              for seed in range(DRAWS)]
    torch.jit.script(held).save(folder / f'{name}.pt')
    torch.save({'hidden': [x for x, _ in inputs], 'positions': [p for _, p in inputs],
                'plain': expected, 'compressed': blocks.run(held, inputs),
                'bound': ROOM * max(errors)}, folder / f'{name}.expected')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('library', type=pathlib.Path)
    parser.add_argument('folder', type=pathlib.Path)
    arguments = parser.parse_args()
    torch.ops.load_library(arguments.library)
    warnings.filterwarnings('ignore', '.*torch.jit.*')  # that newer releases deprecate it is known
    # Sums may depend on how many threads share them: one, here and in the program that compares.
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for shape, sizes in (('odd', blocks.ODD), ('real', blocks.REAL)):
            for dtype in (torch.float32, torch.bfloat16):
                for error, max_error in (('exact', 0.0), ('percent', 0.01)):
                    for run, lengths, batch in (('long', [31, 1, 1, 1], 2), ('short', [1, 1, 1], 1)):
                        name = f'{shape}_{str(dtype).split(".")[1]}_{error}_{run}'
                        write_case(arguments.folder, name, sizes, dtype, max_error, lengths, batch)


if __name__ == '__main__':
    main()
