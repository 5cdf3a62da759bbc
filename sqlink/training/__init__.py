"""SQLink: training."""
