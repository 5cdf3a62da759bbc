"""SQLink: configs."""
