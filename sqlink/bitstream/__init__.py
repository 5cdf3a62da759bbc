"""SQLink: bitstream."""
