# SPDX-License-Identifier: Apache-2.0
"""Interleaved repeats: each contestant once a round, so that a busy machine is busy for all of them alike."""

import math
import statistics

SHORTEST_SAMPLE = 1e-3  # seconds; quicker calls are timed several at once
SLOW = 0.25  # seconds a call, from which on a contestant takes part in the first rounds only
ROUNDS_OF_SLOW = 3
WARM_UP = 2


def race(timers, repeats):
    """{name: [seconds a call in each round]}, of {name: timer}; a timer takes a number of calls.

    The first rounds warm caches and allocators up and are not counted. A slow contestant's list is shorter.
    """
    calls = {}
    for name, timer in timers.items():
        warm = min(timer(1) for _ in range(WARM_UP))
        calls[name] = max(1, math.ceil(SHORTEST_SAMPLE / max(warm, 1e-7))) if repeats > 1 else 1
        if warm > SLOW:
            calls[name] = 0
    samples = {name: [] for name in timers}
    for index in range(repeats):
        for name, timer in timers.items():
            if calls[name] or index < ROUNDS_OF_SLOW:
                count = max(1, calls[name])
                samples[name].append(timer(count) / count)
    return samples


def summary(samples, of=None):
    """Median and spread (half the distance of the quartiles, over the median); with `of` of the rounds' ratios."""
    if of is not None:
        samples = [mine / theirs for mine, theirs in zip(samples, of) if theirs > 0]
    median = statistics.median(samples)
    quartiles = statistics.quantiles(samples, n=4, method='inclusive') if len(samples) > 1 else [median] * 3
    return median, (quartiles[2] - quartiles[0]) / 2 / median if median else 0.0
