"""Validation: what the channels measure beside what theory says, and how fast they run."""
