"""SQLink: sqlink."""
