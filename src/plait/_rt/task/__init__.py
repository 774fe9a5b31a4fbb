"""Tasks: their steps, waits, cancels and results, and how asyncio sees them.

It may import: io and what is below.
"""
