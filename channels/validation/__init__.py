"""Validation of the channels against theory and published curves, and measurements of speed."""
