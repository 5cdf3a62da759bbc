"""Reuse of freed memory by glibc, on a CPU under Linux."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Parameters of glibc's `mallopt`."""


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the whole process; return whether it succeeded.

    By default glibc returns the memory of every large tensor at once, and the kernel zeroes the
    next one page by page, which takes a tenth to a seventh of the networks' time on a CPU. With
    this setting, the process keeps its largest size, or somewhat more if sizes vary much. All
    threads share one arena, so that one thread can reuse what another freed. On other systems
    nothing changes. The command `sqlink` calls this function; your own program may call it, too.
    Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc; TypeError: Windows requires a name
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1))
    return all(mallopt(*setting) for setting in settings)
