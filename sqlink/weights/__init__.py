"""SQLink: weights."""
