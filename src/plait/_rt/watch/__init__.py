"""Watching: the monitor, what it knows of a turn, and what it makes of the times when it could not look itself.

It may import: sched and what is below.
"""
