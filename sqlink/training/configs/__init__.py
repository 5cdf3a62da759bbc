"""SQLink: configurations of the trainings that made the shipped weights."""
