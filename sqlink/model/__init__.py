"""SQLink: model."""
