"""Chunks side by side: every one once, in order, with what went wrong, on one thread each."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from sqlink.runtime.threads import all_threads, one_thread_each, placed, side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_parts_are_worked_on_together_and_come_back_in_order() -> None:
    together = threading.Barrier(2, timeout=20)

    def work(part: int) -> tuple[int, int, str]:
        if part < 2:
            together.wait()
        return part, torch.get_num_threads(), threading.current_thread().name

    done = side_by_side(work, range(6), CPU)
    assert [part for part, _, _ in done] == list(range(6))
    assert {threads for _, threads, _ in done} == {1}
    assert threading.current_thread().name not in {name for _, _, name in done}
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


@pytest.mark.usefixtures("two_threads")
def test_what_goes_wrong_in_a_part_is_raised() -> None:
    def work(part: int) -> int:
        if part == 3:
            raise ValueError("part 3")
        return part

    with pytest.raises(ValueError, match="part 3"):
        side_by_side(work, range(6), CPU)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_threads_of_its_own() -> None:
    side_by_side(abs, range(4), CPU)
    child = os.fork()
    if not child:
        signal.alarm(30)
        side_by_side(abs, range(4), CPU)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_one_part_or_one_thread_stays_where_it_is() -> None:
    here = threading.get_ident()
    assert side_by_side(lambda _: threading.get_ident(), [0], CPU) == [here]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert side_by_side(lambda _: threading.get_ident(), range(3), CPU) == [here] * 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_part_alone_gets_one_thread_where_that_is_asked() -> None:
    def threads(_: int) -> int:
        return torch.get_num_threads()

    assert side_by_side(threads, [0], CPU) == [2]
    with one_thread_each():
        assert side_by_side(threads, [0], CPU) == [1]
    with all_threads(), one_thread_each():
        assert side_by_side(threads, [0], CPU) == [2]
    assert side_by_side(threads, [0], CPU) == [2]


def test_a_1x1_convolution_rounds_alike_on_any_number_of_threads() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Conv2d(256, 128, 1)
        x = torch.randn(1, 256, 18, 24)
    usual = layer(x)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(placed(layer, "cpu")(x))
        torch.set_num_threads(before)
    assert torch.allclose(found[0], usual, atol=1e-5)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
