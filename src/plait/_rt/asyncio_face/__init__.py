"""The asyncio face: what makes a strand an asyncio event loop, on what asyncio brings for this system.

It may import: task and what is below.
"""
