"""Ground: facts of this build and process, and what any module may need; knows nothing of tasks and strands.

It may import: the standard library, plait.errors.
"""
