# SPDX-License-Identifier: Apache-2.0
"""How far two tensors or two sets of logits are apart, in double precision."""

import torch

CHUNK = 1 << 20  # elements in double precision at a time
BOUNDS = ('tensor', 'row', 'element')


class ErrorSums:
    """The errors of y against x as `compress` defines its bounds, from some rows at a time.

    tensor: ||x - y|| / ||x||; row: the largest of those over the rows; element: max |x - y| / max |x|. 0/0 is 0.
    """

    def __init__(self):
        self._squares, self._largest, self._worst_row = (
            torch.zeros(n, dtype=torch.float64) for n in (2, 2, 1))

    def add(self, x, y):
        """Some rows of both, [rows, columns]. x has no NaN or infinity."""
        a = x.double()
        pair = torch.stack((a - y.double(), a))
        row_squares = pair.square().sum(-1)
        self._squares += row_squares.sum(-1)
        self._largest = torch.maximum(self._largest, pair.abs().amax((-2, -1)))
        self._worst_row = torch.maximum(self._worst_row, _ratio(*row_squares.sqrt()).max())

    def errors(self):
        """{bound: error} of all that was added."""
        return {'tensor': float(_ratio(*self._squares.sqrt())), 'row': float(self._worst_row),
                'element': float(_ratio(*self._largest))}


def relative_errors(x, y):
    """{bound: error of y against x}: ErrorSums over all rows (all but the last dimension)."""
    sums = ErrorSums()
    columns = x.shape[-1] if x.ndim else 1
    if x.numel():
        rows_x, rows_y = x.reshape(-1, columns), y.reshape(-1, columns)
        step = max(1, CHUNK // columns)
        for begin in range(0, rows_x.shape[0], step):
            sums.add(rows_x[begin:begin + step], rows_y[begin:begin + step])
    return sums.errors()


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
