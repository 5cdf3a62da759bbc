"""What is said of the use of budgets is so of the files themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from sqlink.codecs import load_codec
from sqlink.codecs.base import Rate, Stream
from sqlink.codecs.budget_use import budget_use, main
from sqlink.codecs.jpeg import JPEG
from sqlink.data.pictures import save_picture
from sqlink.data.streets import Streets


def streets() -> list[Tensor]:
    return [sample.image for sample in Streets(seed=3, count=2, height=64, width=96)]


def test_shares_are_those_of_the_files() -> None:
    codec = load_codec("jpeg")
    low, middle, high = budget_use(codec, streets(), [0.02, 2.0, 4.0])
    assert (low.shares, low.pictures) == ((), 2)
    for one in (middle, high):
        budget = int(one.bpp * 64 * 96 / 8)
        sizes = []
        for image in streets():
            (answer,) = load_codec("jpeg").encode(image[None], Rate(bytes=budget))
            assert isinstance(answer, Stream)
            sizes.append(answer.size)
        assert one.shares == tuple(size / budget for size in sizes)
        assert (one.exceeded, one.finer) == (0, 0)


class Timid(JPEG):
    """A codec that takes half of what it may."""

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream]:
        found = super().encode(images, Rate(bytes=(rate.bytes or 0) // 2))
        return [one for one in found if isinstance(one, Stream)]


def test_a_budget_that_is_not_used_shows() -> None:
    (one,) = budget_use(Timid(), streets(), [4.0])
    assert one.finer == 2
    assert max(one.shares) <= 0.5


def test_the_command_prints_a_table_or_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, image in enumerate(streets()):
        save_picture(image, tmp_path / f"{n}.png")
    assert main(["jpeg2000", str(tmp_path), "--every", "2", "--bpp", "1.5"]) == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("| 1.5 |")]
    assert line.startswith("| 1.5 | 1 of 1 | 0.9")
    assert line.endswith("| 0 | - |")
    assert main(["jpeg", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
