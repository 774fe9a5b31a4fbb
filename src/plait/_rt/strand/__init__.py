"""Strands: the turn and the queue; those with a thread of their own; how they close; what belongs to one.

It may import: asyncio_face and what is below.
"""
