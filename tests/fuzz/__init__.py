"""Random asyncio programs, run on asyncio's own loop and on plait's: whatever they do, they must see the same.

    program.py      a program: a tree of nodes, drawn by a seed
    kinds/          what a node may be: how it is drawn, and what it does
    play.py         one run of a program: the tasks, locks, queues and names that its nodes share, and what they log
    run.py          a run on a loop, and how it is brought to an end
    disturbed.py    runs in strands of the pool, whose workers are blocked, robbed and handed off meanwhile, and beside them
    trace.py        what a run left behind, and where two of them part
    modes.py        what is compared with what
    hunt.py         many seeds, in processes that may hang or die
    shrink.py       a program that differs, made small
    __main__.py     PYTHONPATH=src:tests python -m fuzz --seeds 0:1000
    test_fuzz.py    a short hunt for `make test`, a long one for `make stress`
    left_out.txt    what differs all the same, or would, and why no program can rely on it

Time is counted in iterations of the loop, so a run is deterministic: nothing waits for a real clock, nothing goes by addresses,
and what comes from a thread has come before the loop looks. So one run on each loop is enough, and any difference is a fault.
"""
