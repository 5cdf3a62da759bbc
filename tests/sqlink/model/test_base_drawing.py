"""The memory of the base's drawings changes no pixel, and saves the network's work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sqlink import Rate
from sqlink.codecs.base import Received
from sqlink.codecs.sqgan.codec import sqgan
from sqlink.data import open_dataset
from sqlink.model.base_drawing import BaseDrawing, RecentDrawings
from sqlink.model.sqgan import SQGAN


def test_the_next_rate_of_a_picture_draws_the_base_once_and_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (scene,) = open_dataset("streets", seed=5, count=1, height=96, width=128)
    kept, fresh = sqgan(), sqgan()
    drawings: list[bool] = []
    draw = SQGAN._drawn

    def counted(model: SQGAN, image: Tensor, map_: Tensor, realism: float) -> BaseDrawing:
        drawings.append(model is kept.model)
        return draw(model, image, map_, realism)

    streams = [kept.encode(scene.image[None], Rate(bpp=bpp))[0] for bpp in (0.3, 0.5)]
    monkeypatch.setattr(SQGAN, "_drawn", counted)
    for realism in (1.0, 0.5, 0.0):
        for stream in streams:
            kept.realism = fresh.realism = realism
            ours, theirs = (one.decode([Received.whole(stream)]) for one in (kept, fresh))
            assert torch.equal(ours.images, theirs.images)
            assert ours.segmentation is not None
            assert theirs.segmentation is not None
            assert torch.equal(ours.segmentation, theirs.segmentation)
            fresh.forget()
    assert drawings.count(True) == 2  # at realism 0 and 1
    kept.realism = 0.0
    lost = Received(streams[0].session, (None, *(p.data for p in streams[0].packets[1:])))
    assert not torch.equal(kept.decode([lost]).images, ours.images)
    kept.forget()
    kept.decode([Received.whole(streams[0])])
    assert drawings.count(True) == 4


def test_the_oldest_drawing_goes_first() -> None:
    memory = RecentDrawings(most=2)
    made: list[tuple[int, int]] = []

    def drawing(number: int, end: int = 0) -> BaseDrawing:
        indices = torch.full((1, 2, 2), number)

        def draw() -> BaseDrawing:
            made.append((number, end))
            return BaseDrawing(*[torch.tensor(float(number))] * 4)

        return memory.of(indices, indices, end, draw)

    for number in (1, 2, 1, 3, 1, 2):
        assert float(drawing(number).picture) == number
    assert made == [(1, 0), (2, 0), (3, 0), (2, 0)]
    drawing(2, end=1)
    assert made[-1] == (2, 1)
    memory.clear()
    drawing(2)
    assert made[-1] == (2, 0)
