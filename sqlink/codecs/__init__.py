"""SQLink: codecs."""
