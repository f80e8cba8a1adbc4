# SPDX-License-Identifier: Apache-2.0
"""What `python -m qvlmem bench` measures: codecs beside a copy, beside PyTorch and beside other packages.

    cases        the table of codecs, with what each states and the goals set for it
    rivals       what a PyTorch user would type instead
    contestant   what all of these are to the stopwatch
    peers        what other packages do; a program of its own, for an environment of its own
    peer_process that program, as the one that measures sees it
    rounds       interleaved repeats, and the figures made of them
    worker       the process that measures, under one condition
    conditions   reused and fresh memory
    judgement    what can be said once all rows are there: goals, and speed-ups by threads
    figure_tables, roofline: what is printed and drawn
"""
