"""Chunks of pictures side by side on the cores of a CPU.

    one after another, every layer cut over two threads     |  1 a  |  1 b  | ...
    side by side, each chunk on a thread of its own         |   1   |   3   | ...
                                                            |   2   |   4   | ...

A thread that has a chunk to itself waits for no other after each layer, and while one packs bytes,
which is Python's, the others compute. The chunks and their results are the same either way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Answer = TypeVar("Answer")


def side_by_side(
    work: Callable[[Part], Answer], parts: Iterable[Part], device: torch.device
) -> list[Answer]:
    """Return `work` of every part, in order; on a CPU as many at once as torch has threads.

    An error of any part is raised here. `work` enters `torch.inference_mode` itself: modes of this
    kind are a thread's own.
    """
    jobs = list(parts)
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(jobs) < 2:
        return [work(part) for part in jobs]
    return list(_workers(threads).map(work, jobs))


@lru_cache(maxsize=1)
def _workers(threads: int) -> ThreadPoolExecutor:
    """Return so many threads, in each of which torch uses one."""
    ready = threading.Barrier(threads, timeout=60)

    def begin() -> None:
        torch.get_num_threads()  # the first look sets a thread's number to the process's
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="sqlink")
    for future in [pool.submit(begin) for _ in range(threads)]:
        future.result()
    torch.set_num_threads(threads)  # what threads to come take as their number
    return pool


if hasattr(os, "register_at_fork"):  # a child has the pool without its threads
    os.register_at_fork(after_in_child=_workers.cache_clear)
