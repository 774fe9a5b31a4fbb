"""Who stalled, where, and why: stack capture and the report."""
