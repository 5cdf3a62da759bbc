"""SQLink: data."""
