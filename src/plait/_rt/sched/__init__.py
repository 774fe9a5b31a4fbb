"""The scheduler: processors, the workers that hold them, where these park, hand-off, fairness under the GIL.

It may import: strand and what is below.
"""
