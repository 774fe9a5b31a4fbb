"""The figures of plait: one module each, to run alone (`python -m bench.switch --peer plait`), printing a JSON object.

`python -m bench` runs them all, interleaved over interpreters and peers, and writes a table. Times are taken inside the
measured process, so start-up never counts; no figure asserts an absolute time.
"""
