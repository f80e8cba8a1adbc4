# SPDX-License-Identifier: Apache-2.0
"""How far two tensors or two sets of logits are apart, in double precision."""

import torch

CHUNK = 1 << 20  # elements in double precision at a time
BOUNDS = ('tensor', 'row', 'element')


def same_bits(x, y):
    """True where shape, dtype and every bit agree: NaN equals itself, 0.0 is not -0.0."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    flat = (t.contiguous().reshape(-1).view(torch.uint8) for t in (x, y))
    return torch.equal(*flat)


def relative_errors(x, y):
    """{bound: error of y against x}, as `compress` defines its bounds. x has no NaN or infinity.

    tensor: ||x - y|| / ||x||; row: the largest of those over the rows (all but the last dimension);
    element: max |x - y| / max |x|. 0/0 is 0.
    """
    if x.numel() == 0:
        return dict.fromkeys(BOUNDS, 0.0)
    columns = x.shape[-1] if x.ndim else 1
    rows_x, rows_y = x.reshape(-1, columns), y.reshape(-1, columns)
    step = max(1, CHUNK // columns)
    squares, largest, worst_row = (torch.zeros(n, dtype=torch.float64) for n in (2, 2, 1))
    for begin in range(0, rows_x.shape[0], step):
        a = rows_x[begin:begin + step].double()
        pair = torch.stack((a - rows_y[begin:begin + step].double(), a))
        row_squares = pair.square().sum(-1)
        squares += row_squares.sum(-1)
        largest = torch.maximum(largest, pair.abs().amax((-2, -1)))
        worst_row = torch.maximum(worst_row, _ratio(*row_squares.sqrt()).max())
    return {'tensor': float(_ratio(*squares.sqrt())), 'row': float(worst_row),
            'element': float(_ratio(*largest))}


def _ratio(numerator, denominator):
    return torch.where(numerator == 0, 0.0, numerator / denominator)


def compare_logits(plain, other):
    """What changed between two lists of [positions, vocabulary] logits of the same inputs. KL in nats."""
    difference, divergence, spread, changed = [], [], [], 0
    for a, b in zip(plain, other, strict=True):
        a, b = a.double(), b.double()
        log_p, log_q = a.log_softmax(-1), b.log_softmax(-1)
        difference.append((a - b).abs().flatten())
        divergence.append((log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0))
        spread.append(a.std(-1))
        changed += int((a.argmax(-1) != b.argmax(-1)).sum())
    difference, divergence, spread = map(torch.cat, (difference, divergence, spread))
    return {
        'positions': len(divergence),
        'logit_spread': float(spread.mean()),
        'max_logit_difference': float(difference.max()),
        'mean_logit_difference': float(difference.mean()),
        'mean_kl_nats': float(divergence.mean()),
        'max_kl_nats': float(divergence.max()),
        'next_tokens_that_differ': changed,
    }
