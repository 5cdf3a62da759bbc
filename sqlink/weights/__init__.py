"""Weights that are shipped, and the manifest that says what they are."""
