"""Parts of a batch side by side on the cores of a CPU.

    one after another, every layer cut over two threads     |  1 a  |  1 b  | ...
    side by side, each part on a thread of its own          |   1   |   3   | ...
                                                            |   2   |   4   | ...

A thread with a part of its own does not wait for others after each layer, and while one thread
packs bytes in Python, the others compute.

PyTorch rounds differently on one thread than on several for two reasons, and this module removes
both: a 1x1 convolution uses another kernel on one thread (`placed`), and group normalisation adds
as many partial sums as there are threads (`one_thread_each`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TypeVar

import torch
from torch import nn

Part = TypeVar("Part")
Answer = TypeVar("Answer")
Network = TypeVar("Network", bound=nn.Module)

_ALONE_TOO: ContextVar[bool] = ContextVar("one_thread_each", default=False)
_AT_ONCE: ContextVar[bool] = ContextVar("all_threads", default=False)


def side_by_side(
    work: Callable[[Part], Answer], parts: Iterable[Part], device: torch.device
) -> list[Answer]:
    """Return `work(part)` for every part, in order; a CPU runs as many at once as torch has
    threads.

    A single part uses all threads, but only one thread within `one_thread_each`, unless that is
    within `all_threads`. An error of any part is raised here. `work` must enter
    `torch.inference_mode` itself, because such modes belong to a thread.
    """
    jobs = list(parts)
    threads = torch.get_num_threads()
    alone = len(jobs) < 2 and (_AT_ONCE.get() or not _ALONE_TOO.get())
    if device.type != "cpu" or threads == 1 or alone:
        return [work(part) for part in jobs]
    return list(_workers(threads).map(work, jobs))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Give every part of `side_by_side` one thread, as a context or a decorator.

    Results are then bit-identical for any number of threads and of parts at once.
    """
    token = _ALONE_TOO.set(True)
    try:
        yield
    finally:
        _ALONE_TOO.reset(token)


@contextmanager
def all_threads() -> Iterator[None]:
    """Give a single part all threads, even within `one_thread_each`.

    A picture that a user waits for takes less time; its last bits depend on the number of threads.
    """
    token = _AT_ONCE.set(True)
    try:
        yield
    finally:
        _AT_ONCE.reset(token)


def placed(network: Network, device: torch.device | str) -> Network:
    """Move a network to a device; on a CPU, make its 1x1 convolutions use the same kernel always.

    On a CPU PyTorch uses oneDNN's kernel with several threads and another with one thread, unless
    the layer has a stride or a dilation. Setting a dilation for a 1x1 kernel has no other effect.
    """
    dilation = (2, 2) if torch.device(device).type == "cpu" else (1, 1)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            layer.dilation = dilation
    return network.to(device)


@lru_cache(maxsize=1)
def _workers(threads: int) -> ThreadPoolExecutor:
    """Return a pool of `threads` threads, in each of which torch uses one thread."""
    ready = threading.Barrier(threads, timeout=60)

    def begin() -> None:
        torch.get_num_threads()  # the first read sets a thread's number to that of the process
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="sqlink")
    for future in [pool.submit(begin) for _ in range(threads)]:
        future.result()
    torch.set_num_threads(threads)  # the number that future threads use
    return pool


if hasattr(os, "register_at_fork"):  # a forked child has the pool without its threads
    os.register_at_fork(after_in_child=_workers.cache_clear)
