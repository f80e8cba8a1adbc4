# SPDX-License-Identifier: Apache-2.0
"""Interleaved repeats: each contestant once a round, so that a busy machine is busy for all of them alike."""

import math
import statistics

SHORTEST_SAMPLE = 1e-3  # seconds; quicker calls are timed several at once
SHARE = 0.25  # seconds that the rounds of a guest may take, but for the least number of them
LEAST_ROUNDS = 3
WARM_UP = 2


def race(timers, repeats, guests=()):
    """{name: [seconds a call in each round]}, of {name: timer}; a timer takes a number of calls.

    The first rounds warm caches and allocators up and are not counted. A slow guest takes part in the first rounds
    only, and its list is shorter.
    """
    calls, rounds = {}, {}
    for name, timer in timers.items():
        warm = timer(1)
        for _ in range(WARM_UP - 1):
            if name not in guests or warm < SHARE:
                warm = min(warm, timer(1))
        calls[name] = max(1, math.ceil(SHORTEST_SAMPLE / max(warm, 1e-7))) if repeats > 1 else 1
        rounds[name] = max(LEAST_ROUNDS, int(SHARE / max(warm, 1e-7))) if name in guests else repeats
    samples = {name: [] for name in timers}
    for index in range(repeats):
        for name, timer in timers.items():
            if index < rounds[name]:
                samples[name].append(timer(calls[name]) / calls[name])
    return samples


def summary(samples, of=None):
    """Median and spread (half the distance of the quartiles, over the median); with `of` of the rounds' ratios."""
    if of is not None:
        samples = [mine / theirs for mine, theirs in zip(samples, of) if theirs > 0]
    median = statistics.median(samples)
    quartiles = statistics.quantiles(samples, n=4, method='inclusive') if len(samples) > 1 else [median] * 3
    return median, (quartiles[2] - quartiles[0]) / 2 / median if median else 0.0
