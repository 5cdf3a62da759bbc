"""Sweeps that are shipped; `sqlink sweep` runs one."""
