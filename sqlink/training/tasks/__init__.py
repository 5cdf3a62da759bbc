"""Task files of `sqlink.training.task`, package data."""
