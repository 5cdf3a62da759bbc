"""SQLink: metrics."""
