"""The runtime's core. Nothing here is public, and it imports nothing public but errors and stats."""
