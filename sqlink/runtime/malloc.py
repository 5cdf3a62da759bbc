"""What becomes of memory that was freed, on a CPU under Linux."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Parameters of glibc's `mallopt`."""


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory, for the whole process; says whether it could.

    By default it hands every large tensor's memory back at once, and the kernel zeroes the next one
    of that size again, page by page: on a CPU a tenth to a seventh of the networks' time. The
    process then stays as large as it once was, or, if sizes vary much, somewhat larger. All threads
    share one arena, so that what one freed another takes. Elsewhere nothing is changed. `sqlink`
    does this; a program of one's own may. Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc; TypeError: Windows wants a name
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1))
    return all(mallopt(*setting) for setting in settings)
