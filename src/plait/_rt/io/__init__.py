"""I/O: timers, pollers and what they stand on, the threads for blocking calls, where signals are written to.

It may import: ground.
"""
