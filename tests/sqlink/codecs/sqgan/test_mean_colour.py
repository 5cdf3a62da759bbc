"""The mean colour: it is said in whole levels, and what is drawn is shifted to it."""

from __future__ import annotations

import math

import pytest
import torch

from sqlink.codecs.base import Rate, Received, Stream
from sqlink.codecs.sqgan.codec import sqgan
from sqlink.codecs.sqgan.mean_colour import mean_colours, with_mean_colours
from sqlink.data.streets import Streets


def pictures() -> torch.Tensor:
    noise = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(3))
    return (255 * (0.3 + 0.4 * noise)).round() / 255


def test_it_is_the_mean_in_levels_whatever_the_batch() -> None:
    images = pictures()
    found = mean_colours(images)
    for image, colour in zip(images, found, strict=True):
        means = 255 * image.double().mean((1, 2))
        assert (torch.tensor(list(colour)) - means).abs().max() <= 0.5
    assert [*mean_colours(images[:1]), *mean_colours(images[1:])] == found
    assert mean_colours(torch.ones(1, 3, 2, 2)) == [b"\xff\xff\xff"]


def test_pictures_are_shifted_to_it_and_nothing_else_changes() -> None:
    images = pictures()
    wanted = bytes([120, 130, 140])
    shown = with_mean_colours(images, [wanted, None])
    assert torch.equal(shown[1], images[1])
    shift = shown[0] - images[0]
    assert shift.flatten(1).std(1).max() < 1e-6
    assert mean_colours(shown)[0] == wanted


def test_what_clamping_takes_is_added() -> None:
    noise = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(5))
    wanted = bytes([160, 127, 90])
    shown = with_mean_colours(noise, [wanted])
    assert mean_colours(shown) == [wanted]
    assert (shown.min(), shown.max()) == (0, 1)


def test_values_out_of_range_count_as_its_ends() -> None:
    odd = torch.tensor([1.2, -0.2, math.nan]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert mean_colours(odd) == [b"\xff\x00\x00"]


def test_a_cast_that_the_network_does_not_know_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The green of another camera, over a street without much of it."""
    street = Streets(seed=11, count=1, height=128, width=192)[0].image[None]
    cast = torch.tensor([-0.04, 0.04, -0.04]).view(1, 3, 1, 1)
    image = (street + cast).clamp(0, 1)
    codec = sqgan()
    (stream,) = codec.encode(image, Rate(bpp=0.04))
    assert isinstance(stream, Stream)

    def missed() -> float:
        shown = codec.decode([Received.whole(stream)]).images
        return float((shown - image).mean((2, 3)).abs().max())

    found = missed()
    monkeypatch.setattr("sqlink.codecs.sqgan.codec.with_mean_colours", lambda drawn, _: drawn)
    assert found < 0.004 < 0.5 * missed()
