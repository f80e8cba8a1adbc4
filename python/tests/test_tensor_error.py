# SPDX-License-Identifier: Apache-2.0
"""The measurements that `python -m qvlmem run` reports, against independent ones."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import strategies
from qvlmem.models import tensor_error


@given(strategies.tensors(kinds=('normal', 'zeros', 'outliers', 'huge', 'subnormal', 'wide')),
       st.floats(-3, 3))
def test_errors_are_those_of_the_bounds(x, factor):
    y = (x.double() * factor).to(x.dtype) if bool((x.double() * factor).isfinite().all()) else -x
    y = torch.nan_to_num(y, posinf=torch.finfo(x.dtype).max, neginf=torch.finfo(x.dtype).min)
    errors = tensor_error.relative_errors(x, y)
    for bound, measure in (('tensor', strategies.tensor_error), ('row', strategies.row_error),
                           ('element', strategies.element_error)):
        assert errors[bound] == pytest.approx(measure(x, y), rel=1e-9, abs=1e-300), bound


def test_errors_of_more_rows_than_a_chunk_has(monkeypatch):
    x, y = torch.randn(2, 9, 7)
    whole = tensor_error.relative_errors(x, y)
    monkeypatch.setattr(tensor_error, 'CHUNK', 15)  # two rows
    pieces = tensor_error.relative_errors(x, y)
    assert pieces == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize('bound', tensor_error.BOUNDS)
def test_a_nan_in_any_row_is_no_small_error(bound):
    x, y = torch.ones(4, 3), torch.ones(4, 3)
    y[2, 1] = math.nan
    assert math.isnan(tensor_error.relative_errors(x, y)[bound])


def test_kl_divergence_of_known_distributions():
    plain = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]).log()
    other = torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]]).log() + 7  # a shift changes nothing
    changed = tensor_error.compare_logits([plain[:1], plain[1:]], [other[:1], other[1:]])
    assert changed['positions'] == 2 and changed['next_tokens_that_differ'] == 1
    assert changed['max_kl_nats'] == pytest.approx(0.25 * math.log(2), rel=1e-6)
    assert changed['mean_kl_nats'] == pytest.approx(0.125 * math.log(2), rel=1e-6)


def test_logit_differences():
    plain = torch.tensor([[1.0, 2.0, 4.0]])
    changed = tensor_error.compare_logits([plain], [torch.tensor([[1.5, 2.0, 3.0]])])
    assert changed['max_logit_difference'] == 1 and changed['mean_logit_difference'] == 0.5
    assert changed['logit_spread'] == pytest.approx(float(plain.std()))
