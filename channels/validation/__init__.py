"""Validation: the channels against theory and published curves, and their speed."""
