"""Unequal error protection: the search for a plan, and its comparison with equal protection."""
