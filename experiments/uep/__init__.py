"""Unequal error protection: the search for a protection plan, and its comparison with equal."""
