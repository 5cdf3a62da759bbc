"""Chunks of pictures side by side on the cores of a CPU.

    one after another, every layer cut over two threads     |  1 a  |  1 b  | ...
    side by side, each chunk on a thread of its own         |   1   |   3   | ...
                                                            |   2   |   4   | ...

A thread that has a chunk to itself waits for no other after each layer, and while one packs bytes,
which is Python's, the others compute.

Two things make PyTorch round differently on one thread than on several, and are dealt with here: a
1x1 convolution runs another kernel on one thread (`placed`), and group normalisation adds up
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
    """Return `work` of every part, in order; on a CPU as many at once as torch has threads.

    A part that is alone has all threads to itself; within `one_thread_each` it has one, unless
    `all_threads` is around it. An error of any part is raised here. `work` enters
    `torch.inference_mode` itself: modes of this kind are a thread's own.
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

    Results are then the same bits whatever the number of threads, and of parts at once.
    """
    token = _ALONE_TOO.set(True)
    try:
        yield
    finally:
        _ALONE_TOO.reset(token)


@contextmanager
def all_threads() -> Iterator[None]:
    """Give a part that is alone all threads, whatever is called within says of `one_thread_each`.

    A picture that somebody waits for takes less time; its last bits depend on the threads.
    """
    token = _AT_ONCE.set(True)
    try:
        yield
    finally:
        _AT_ONCE.reset(token)


def placed(network: Network, device: torch.device | str) -> Network:
    """Move a network to a device, where its 1x1 convolutions run one kernel on any thread count.

    On a CPU PyTorch takes oneDNN's where there are several threads and another on one, unless the
    layer has a stride or a dilation. The dilation of a kernel of one value changes nothing else.
    """
    dilation = (2, 2) if torch.device(device).type == "cpu" else (1, 1)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            layer.dilation = dilation
    return network.to(device)


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
